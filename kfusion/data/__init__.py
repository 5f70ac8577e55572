"""From files to pairs of an image and a sound: reading, checking, splitting, augmenting, batching."""
