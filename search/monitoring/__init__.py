"""Monitoring: what a sweep shows while it runs, in the terminal and in TensorBoard."""
