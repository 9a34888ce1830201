"""Training of networks on a set, augmentation, and evaluation of sets."""
