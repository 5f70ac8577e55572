"""Sounds: files to samples, samples to features, augmentation, corruption, encoder."""
