"""Wide residual networks (Zagoruyko & Komodakis 2016) of pre-activation blocks."""

from __future__ import annotations

from torch import nn

from generalist_core.models.preact_resnet import PreActBlock


def wide_resnet(
    n_classes: int, shape: tuple[int, int, int], *, n_blocks: int, width: int
) -> nn.Sequential:
    """Three stages of `n_blocks` blocks, 16, 32 and 64 times `width` channels wide.

    Four blocks per stage make WRN-28 by the authors' count (6 n + 4 layers, shortcuts included);
    five make WRN-32 by the count of Madry et al. 2018 (6 n + 2, shortcuts excluded).
    """
    widths = (16, 16 * width, 32 * width, 64 * width)
    layers: list[nn.Module] = [nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)]
    for i, stride in enumerate((1, 2, 2)):
        layers.append(PreActBlock(widths[i], widths[i + 1], stride))
        layers += [PreActBlock(widths[i + 1], widths[i + 1], 1) for _ in range(n_blocks - 1)]
    layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], n_classes)
    )
