"""A sweep over one's own model and images, in Python."""

import dataclasses
import sys
from pathlib import Path

from sklearn.datasets import load_digits
from torch import from_numpy, nn

from generalist_core import Split, make_dataset, short
from search import SweepConfig, sweep


def build(n_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Any module from images (n, *shape) in [0, 1] to logits (n, n_classes)."""
    n_pixels = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(n_pixels, 64), nn.ReLU(), nn.Linear(64, n_classes))


def main(folder: Path) -> None:
    """Four short trainings, and their front."""
    digits = load_digits()
    images = from_numpy(digits.images).float().unsqueeze(1) / 16
    train = Split(images=images, labels=from_numpy(digits.target))
    config = dataclasses.replace(short(epochs=6, epsilon=0.1), seed=1)
    data = make_dataset(config.data, train=train, test=None)
    request = SweepConfig(base=config, space="smoke", trials=4)
    found = sweep(request, folder, data=data, model=build)
    for point in found.front.points:
        print(point.trial, point.mixing_ratio, dict(point.accuracies))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
