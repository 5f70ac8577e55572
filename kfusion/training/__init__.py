"""Training: the learning-rate schedule, the optimizer, checkpoints that resume exactly, and the loop around `fit`."""
