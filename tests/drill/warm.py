"""All that a local sweep and its report import."""

# ruff: noqa: F401 - for the processes that are forked from one that has imported this

import matplotlib.backends.backend_agg
import matplotlib.pyplot
import torch.utils.tensorboard

import search.api.explain
import search.api.sweep
import search.api.verify
import search.cli.main
import search.report.contents
import search.report.page
