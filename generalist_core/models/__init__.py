"""Classifiers: the architectures of experts."""
