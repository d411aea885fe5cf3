"""Search spaces: functions from a trial and a base configuration to a configuration."""

from spaces.experts import experts, tasks
from spaces.mixing import averaging, mixing
from spaces.named import SPACES, base_suggestion, fixed, full, load_space, paper_suggestion, smoke
from spaces.protocol import Space, Trial, tune_choice, tune_float, tune_int

__all__ = [
    "SPACES",
    "Space",
    "Trial",
    "averaging",
    "base_suggestion",
    "experts",
    "fixed",
    "full",
    "load_space",
    "mixing",
    "paper_suggestion",
    "smoke",
    "tasks",
    "tune_choice",
    "tune_float",
    "tune_int",
]
