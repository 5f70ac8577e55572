"""Searching the settings of a training run with keras-tuner."""
