"""What kfusion knows about each kind of input: a folder a kind."""
