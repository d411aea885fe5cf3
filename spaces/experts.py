"""Spaces over each expert's optimizer, schedule, attack and loss."""

from __future__ import annotations

from generalist_core.config import PGD, CustomLoss, ExpertConfig, TrainConfig
from generalist_core.config.codec import replace_at, value_at
from spaces.protocol import Trial, tune_choice, tune_float, tune_int

OPTIMIZERS = ("SGD", "AdamW", "Adam", "RMSprop")

SCHEDULES = ("PiecewiseLinear", "Cosine", "OneCycle")

LOSSES = ("CrossEntropy", "TRADES", "MART")


def experts(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Every expert's optimizer and learning-rate schedule, each with the fields of its kind."""
    config = base
    for expert in base.experts:
        config = tune_optimizer(trial, config, f"experts.{expert.name}.optimizer")
        config = tune_schedule(trial, config, f"experts.{expert.name}.schedule")
    return config


def tasks(trial: Trial, base: TrainConfig) -> TrainConfig:
    """The attack and loss of robust experts, and the label smoothing of natural experts."""
    config = base
    for expert in base.experts:
        path = f"experts.{expert.name}"
        if expert.attack is not None:
            config = tune_robust_task(trial, config, expert)
        elif not isinstance(expert.loss, CustomLoss):
            config = tune_float(trial, config, f"{path}.label_smoothing", 0.0, 0.2)
    return config


def tune_optimizer(trial: Trial, config: TrainConfig, path: str) -> TrainConfig:
    """The kind of optimizer, its learning rate, weight decay and momentum."""
    config = tune_choice(trial, config, path, OPTIMIZERS)
    kind = value_at(config, path)
    here = f"{path}.{kind}"
    if kind == "SGD":
        config = tune_float(trial, config, f"{here}.lr", 3e-3, 0.5, log=True)
        config = tune_float(trial, config, f"{here}.momentum", 0.8, 0.98)
        return tune_float(trial, config, f"{here}.weight_decay", 1e-5, 1e-2, log=True)
    config = tune_float(trial, config, f"{here}.lr", 1e-4, 2e-2, log=True)
    if kind != "RMSprop":
        config = tune_float(trial, config, f"{here}.beta1", 0.8, 0.95)
    high = 0.3 if kind == "AdamW" else 1e-2
    return tune_float(trial, config, f"{here}.weight_decay", 1e-6, high, log=True)


def tune_schedule(trial: Trial, config: TrainConfig, path: str) -> TrainConfig:
    """The shape of the learning-rate schedule, above all in its late phase."""
    config = tune_schedule_kind(trial, config, path)
    kind = value_at(config, path)
    here = f"{path}.{kind}"
    if kind == "PiecewiseLinear":
        config = tune_float(trial, config, f"{here}.values.2", 0.05, 1.0, log=True)
        return tune_float(trial, config, f"{here}.values.3", 3e-3, 1.0, log=True)
    if kind == "OneCycle":
        return tune_float(trial, config, f"{here}.peak", 0.1, 0.7)
    return tune_float(trial, config, f"{here}.final", 0.0, 0.5)


def tune_schedule_kind(trial: Trial, config: TrainConfig, path: str) -> TrainConfig:
    """The kind of schedule; a piecewise linear one has its knots at thirds of the run."""
    kind = trial.suggest_categorical(path, SCHEDULES)
    thirds = {"knots": [0, 1 / 3, 2 / 3, 1], "values": [1, 1, 0.1, 0.01], "per_step": True}
    fields = thirds if kind == "PiecewiseLinear" else {}
    return replace_at(config, path, {"type": kind, **fields})


def tune_robust_task(trial: Trial, config: TrainConfig, expert: ExpertConfig) -> TrainConfig:
    """The loss and its weight, and the steps of PGD; a custom loss or attack is kept."""
    config = tune_loss(trial, config, expert)
    if isinstance(expert.attack, PGD):
        path = f"experts.{expert.name}.attack"
        config = tune_int(trial, config, f"{path}.steps", 3, 12)
        config = tune_float(trial, config, f"{path}.relative_step_size", 0.1, 1.0, log=True)
    return config


def tune_loss(trial: Trial, config: TrainConfig, expert: ExpertConfig) -> TrainConfig:
    """The loss of a robust expert, its weight, and what PGD then maximises.

    MART, which needs one label for each image, is left out for an expert that mixes them.
    """
    path = f"experts.{expert.name}"
    if not isinstance(expert.loss, CustomLoss):
        losses = [name for name in LOSSES if name != "MART" or expert.batch_augmentation is None]
        config = tune_choice(trial, config, f"{path}.loss", losses)
    loss = value_at(config, f"{path}.loss")
    if loss in ("TRADES", "MART"):
        config = tune_float(trial, config, f"{path}.loss.{loss}.beta", 0.5, 10.0, log=True)
    if isinstance(expert.attack, PGD):
        inner = "kl" if loss == "TRADES" and expert.attack.random_start else "cross-entropy"
        config = replace_at(config, f"{path}.attack.loss", inner)
    return config
