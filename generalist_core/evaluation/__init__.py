"""Evaluation: the attack suite, its laws, and indicators of failed attacks."""
