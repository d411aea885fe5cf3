"""Scheduling: what to try next and what to stop, independent of how trials are run."""
