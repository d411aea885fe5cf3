"""A sweep over a custom model and custom images, in Python."""

import dataclasses
import sys

from sklearn.datasets import load_digits
from torch import from_numpy, nn

from generalist_core import Split, make_dataset, short
from search import SweepConfig, sweep


def build(n_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Make a module that maps images (n, *shape) in [0, 1] to logits (n, n_classes)."""
    n_pixels = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(n_pixels, 64), nn.ReLU(), nn.Linear(64, n_classes))


def main(folder: str) -> None:
    """Run four short trainings and print their front."""
    digits = load_digits()
    images = from_numpy(digits.images).float().unsqueeze(1) / 16
    train = Split(images=images, labels=from_numpy(digits.target))
    config = dataclasses.replace(short(epochs=6, epsilon=0.1), seed=1)
    data = make_dataset(config.data, train=train, test=None)
    request = SweepConfig(base=config, space="smoke", trials=4)
    result = sweep(request, folder, data=data, model=build)
    for point in result.front.points:
        print(point.trial, point.mixing_ratio, dict(point.accuracies))


if __name__ == "__main__":
    main(sys.argv[1])
