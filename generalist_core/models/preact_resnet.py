"""PreActResNet-18 in its CIFAR form (He et al. 2016, "Identity mappings")."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PreActBlock(nn.Module):
    """BatchNorm and ReLU before each 3x3 convolution; none follows the sum with the shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(n_in)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(out)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(out))))
        return residual + kept


def preactresnet18(n_classes: int, shape: tuple[int, int, int], width: int) -> nn.Sequential:
    """Four stages of two blocks with 1, 2, 4 and 8 times `width` channels."""
    widths = (width, width, 2 * width, 4 * width, 8 * width)
    layers: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, padding=1, bias=False)]
    for i, stride in enumerate((1, 2, 2, 2)):
        layers += [
            PreActBlock(widths[i], widths[i + 1], stride),
            PreActBlock(widths[i + 1], widths[i + 1], 1),
        ]
    layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], n_classes)
    )
