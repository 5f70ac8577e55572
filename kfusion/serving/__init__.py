"""An exported model behind HTTP: TensorFlow Serving's REST interface, and the page."""
