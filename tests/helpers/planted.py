"""Models with a planted fault, and a small net, trained on digits, to plant it in."""

from __future__ import annotations

import copy
import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generalist_core.attacks.gradient import perturb
from generalist_core.config import Attack, DataConfig, ModelConfig
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Split
from generalist_core.models.build import build_model
from generalist_core.randomness import GeneratorNoise

SHAPE = (1, 8, 8)


@functools.cache
def digits(n: int = 128, n_classes: int = 10) -> Split:
    """The first `n` test digits of the first `n_classes` classes."""
    test = load_dataset(DataConfig(n_validation=200)).test
    assert test is not None
    index = (test.labels < n_classes).nonzero()[:n, 0]
    return test.take(index)


def natural_net(n_classes: int = 10) -> nn.Module:
    """A convnet of width 8 trained on natural digits for about 0.3 s: 97 % correct."""
    return _trained(n_classes, None)


def robust_net(attack: Attack) -> nn.Module:
    """The same, trained on an attack of the digits."""
    return _trained(10, attack)


@functools.cache
@torch.enable_grad()
def _trained(n_classes: int, attack: Attack | None) -> nn.Module:
    train = load_dataset(DataConfig(n_validation=200)).train
    train = train.take((train.labels < n_classes).nonzero()[:, 0])
    net = build_model(ModelConfig(width=8), n_classes, SHAPE, seed=0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    order = torch.Generator().manual_seed(0)
    for _ in range(8):
        for i in torch.split(torch.randperm(len(train), generator=order), 128):
            x, y = train.images[i], train.labels[i]
            if attack is not None:
                x = perturb(attack, net.eval(), x, y, GeneratorNoise(order))
                net.train()
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    return net.eval()


class Planted(nn.Module):
    """A net with one fault."""

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = natural_net() if net is None else net
        self.eval()


class Scaled(Planted):
    """Large logits, which saturate the cross-entropy."""

    factor = 30.0

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.net(x)


class ScaledFar(Scaled):
    factor = 1000.0


class Quantised(Planted):
    """Inputs rounded to eighths, so that there is no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net((8 * x).round() / 8)


class Detached(Planted):
    """The gradient is cut."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach()).detach()


class Randomised(Planted):
    """Noise on the input, from the global random state."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.05 * torch.randn_like(x))


class Dropping(Planted):
    """Dropout that stays on in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(F.dropout(x, 0.2, training=True))


class NoisyByPlace(Planted):
    """Noise with a fixed seed, so that it depends on an image's place in its batch."""

    def forward(self, x: Tensor) -> Tensor:
        source = torch.Generator().manual_seed(0)
        return self.net(x + 0.1 * torch.randn(x.shape, generator=source))


class PooledByPlace(Planted):
    """A random pool whose regions are drawn with a fixed seed for each place in the batch."""

    def forward(self, x: Tensor) -> Tensor:
        source = torch.Generator().manual_seed(0)
        draws = torch.rand(len(x), x.shape[1], 2, generator=source)
        pooled = F.fractional_max_pool2d(x, 2, output_ratio=(0.8, 0.8), _random_samples=draws)
        return self.net(F.interpolate(pooled, size=x.shape[2:]))


class WithoutStatistics(Planted):
    """BatchNorm by the statistics of the batch, in eval mode too."""

    def __init__(self) -> None:
        super().__init__(copy.deepcopy(natural_net()))
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.track_running_stats = False
                part.running_mean = part.running_var = None

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class NoisyByContent(Planted):
    """Noise whose seed is a digest of the image: equal when asked again, other at every change."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.1 * torch.stack([self.noise(image) for image in x.detach()]))

    def noise(self, image: Tensor) -> Tensor:
        digest = int(image.contiguous().view(torch.int32).long().sum()) % 2**31
        return torch.randn(image.shape, generator=torch.Generator().manual_seed(digest))


class Sigmoid(Planted):
    """A sigmoid after the logits, which saturates."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(2 * self.net(x))


class Softmax(Planted):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1)


class NotANumber(Planted):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * torch.nan


class Flattened(Planted):
    """One number per image instead of logits."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).amax(1)


class Remembering(Planted):
    """A buffer that every forward changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n_seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.n_seen += len(x)
        return self.net(x)


class Dynamic(Planted):
    """A gradient is taken inside the forward, as by defences that purify their input."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.net(x).logsumexp(1).sum(), x)
        return self.net(x - 1e-3 * gradient.detach())


class HiddenFromGradients(Planted):
    """The gradients of cross-entropy and margin mislead; only queries find adversarial images.

    Logits are those of rounded images, plus a slope far too weak to change the class.
    """

    def forward(self, x: Tensor) -> Tensor:
        stairs = self.net((8 * x).round() / 8)
        return stairs + 1e-3 * x.flatten(1)[:, : stairs.shape[1]]


class Unbreakable(nn.Module):
    """A model whose label is the first pixel, in steps that no small perturbation crosses.

    If `x[0] = label / n_classes`, every attack runs to its end on every image.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.classes = nn.Parameter(torch.arange(n_classes) / n_classes)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return -((x.flatten(1)[:, :1] - self.classes) ** 2) + 1e-3 * x.flatten(1)[:, 1:2]


class Linear(nn.Module):
    """Logits that are linear in the pixels, with random but fixed weights."""

    def __init__(self, n_classes: int, seed: int = 0) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(seed)
        weight = torch.randn(n_classes, 64, generator=source)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(-0.5 * weight.sum(1))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias

    @torch.no_grad()
    def radii(self, x: Tensor, y: Tensor, dual: float) -> Tensor:
        """The distance, (n,), of each image from the nearest boundary, if no pixel meets 0 or 1.

        For each wrong class, it is the lead of the true logit over the dual norm of the difference
        in weights; `dual` is the order of that norm.
        """
        logits = self(x)
        lead = logits.gather(1, y[:, None]) - logits
        slope = (self.weight[y][:, None] - self.weight).norm(p=dual, dim=2)
        return (lead / slope).scatter(1, y[:, None], torch.inf).amin(1)


def interior_images(n: int = 128, seed: int = 0) -> Tensor:
    """Images, (n, 1, 8, 8), with pixels in [0.45, 0.55], far from 0 and 1."""
    source = torch.Generator().manual_seed(seed)
    return 0.45 + 0.1 * torch.rand(n, *SHAPE, generator=source)


def bits(text: str) -> Tensor:
    """Verdicts as `1` for correct and `0` for broken."""
    return torch.tensor([letter == "1" for letter in text])
