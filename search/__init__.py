"""The sweep: many Generalist trainings on Ray, sampled by Optuna toward the Pareto front."""
