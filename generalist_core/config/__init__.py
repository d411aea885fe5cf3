"""The configuration of one training run: frozen, validated, with a lossless JSON form.

Nothing here imports torch, so that search spaces and the command line stay light. Accuracies,
images and `epsilon` live in [0, 1]; progress is the fraction of a run that is done, in [0, 1].
"""

from __future__ import annotations

from generalist_core.config.attacks import (
    FGSM,
    NFGSM,
    NORMS,
    PGD,
    Attack,
    CustomAttack,
    MultiTargeted,
    Norm,
    SeveralAttacks,
    require_ball,
)
from generalist_core.config.data import DataConfig, ModelConfig
from generalist_core.config.evaluation import EvaluationConfig, NamedAttack
from generalist_core.config.losses import (
    MART,
    TRADES,
    CrossEntropy,
    CustomLoss,
    CutMix,
    Loss,
    MixUp,
)
from generalist_core.config.mixing import MixingConfig, Ratio, RatioSchedule, SyncConfig, as_weights
from generalist_core.config.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from generalist_core.config.schedules import Constant, Cosine, OneCycle, PiecewiseLinear, Schedule
from generalist_core.config.train import (
    PRECISIONS,
    EarlierSettings,
    ExpertConfig,
    Precision,
    TrainConfig,
)
from generalist_core.validation import InvalidConfigError

__all__ = [
    "FGSM",
    "MART",
    "NFGSM",
    "NORMS",
    "PGD",
    "PRECISIONS",
    "SGD",
    "TRADES",
    "Adam",
    "AdamW",
    "Attack",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "CustomAttack",
    "CustomLoss",
    "CutMix",
    "DataConfig",
    "EarlierSettings",
    "EvaluationConfig",
    "ExpertConfig",
    "InvalidConfigError",
    "Loss",
    "MixUp",
    "MixingConfig",
    "ModelConfig",
    "MultiTargeted",
    "NamedAttack",
    "Norm",
    "OneCycle",
    "Optimizer",
    "PiecewiseLinear",
    "Precision",
    "RMSprop",
    "Ratio",
    "RatioSchedule",
    "Schedule",
    "SeveralAttacks",
    "SyncConfig",
    "TrainConfig",
    "as_weights",
    "require_ball",
]
