"""Measurements: agreement with a reference first, then ratios in one run."""
