"""Scheduling: what to try next and what to stop, whoever runs the trials."""
