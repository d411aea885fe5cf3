"""Evaluation: the attack suite, its laws, and indicators of attack failure."""
