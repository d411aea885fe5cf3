"""The study: what a sweep remembers, in Optuna and in its folder."""
