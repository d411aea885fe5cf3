"""Follow a sweep from Python: the protocol `Callback`, and adapters to MLflow and Weights & Biases.

The libraries themselves are imported when an adapter is made.
"""

from search.callbacks.mlflow import MLflowCallback
from search.callbacks.wandb import WandbCallback
from search.scheduling.callbacks import Callback

__all__ = ["Callback", "MLflowCallback", "WandbCallback"]
