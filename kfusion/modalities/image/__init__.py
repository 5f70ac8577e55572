"""Pictures: files to pixels, handwriting to digits, augmentation, corruption, encoder."""
