"""The command line, `generalist-search`."""
