"""Labelled images as tensors: loaded by name or from files, split and augmented."""
