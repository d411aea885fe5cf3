"""A custom search space: a function from a trial and a base configuration to a configuration.

generalist-search sweep --space examples/custom_space.py:space --trials 8 --out runs/custom
"""

from generalist_core.config import TrainConfig
from spaces import Trial, tune_choice, tune_float, tune_int


def space(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Search the natural expert's rate, the robust expert's loss, and the start of the syncs."""
    config = tune_float(trial, base, "experts.natural.optimizer.lr", 0.01, 0.3, log=True)
    config = tune_choice(trial, config, "experts.robust.loss", ["CrossEntropy", "TRADES"])
    if config.experts[1].loss != base.experts[1].loss:
        config = tune_float(trial, config, "experts.robust.loss.TRADES.beta", 1.0, 8.0, log=True)
    return tune_int(trial, config, "sync.start_epoch", base.epochs // 3, base.epochs - 1)
