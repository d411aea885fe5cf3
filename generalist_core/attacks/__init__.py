"""Attacks: adversarial images, the balls that they stay in, and the laws that they keep."""
