"""Data: labelled images as tensors, by name or from files, split and augmented."""
