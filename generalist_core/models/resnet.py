"""ResNet-18 in its CIFAR form (He et al. 2016): a 3x3 stem without pooling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, activated after the sum."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or n_in != n_out:
            project = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(project, nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def resnet18(n_classes: int, shape: tuple[int, int, int], width: int) -> nn.Sequential:
    """Four stages of two blocks with 1, 2, 4 and 8 times `width` channels."""
    widths = (width, width, 2 * width, 4 * width, 8 * width)
    stem = nn.Conv2d(shape[0], width, 3, padding=1, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    for i, stride in enumerate((1, 2, 2, 2)):
        layers += [
            BasicBlock(widths[i], widths[i + 1], stride),
            BasicBlock(widths[i + 1], widths[i + 1], 1),
        ]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], n_classes)
    )
