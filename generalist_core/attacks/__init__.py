"""Attacks: adversarial images, the balls they stay in, and the laws they keep."""
