"""Classifiers: the architectures that experts can have."""
