"""A SavedModel without TensorFlow's Python: its files read, and run through the C API."""
