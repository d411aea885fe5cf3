"""A small convolutional network for any input size."""

from __future__ import annotations

from torch import nn


def convnet(n_classes: int, shape: tuple[int, int, int], width: int) -> nn.Sequential:
    """Three 3x3 convolutions of `width`, 2 and 4 times `width` channels, each with BatchNorm.

    The second and third halve the image; a global average pool feeds one linear layer.
    """
    channels = (shape[0], width, 2 * width, 4 * width)
    layers: list[nn.Module] = []
    for i, stride in enumerate((1, 2, 2)):
        layers += [
            nn.Conv2d(channels[i], channels[i + 1], 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels[i + 1]),
            nn.ReLU(inplace=True),
        ]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], n_classes))
    return nn.Sequential(*layers, *head)
