"""The public functions of `search`, one verb per file."""
