"""Training: experts, their averages and mixtures, and the trainer that drives them."""
