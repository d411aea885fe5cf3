"""The study: the memory of a sweep, in Optuna and in the folder of the sweep."""
