"""One training step of both experts against a textbook step: agreement first, then time.

python -m benchmarks.train_step [--repeats 7]

The textbook step takes the attack's gradients with `backward()`, so that weight gradients come too,
and averages state dicts tensor by tensor. The bound is the 26 forwards' worth of work that PGD-10
and two updates need, at the measured time of one forward. Times are interleaved; their medians
count.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generalist_core.averaging import weights_of
from generalist_core.config import PGD, SGD, ExpertConfig, MixingConfig, ModelConfig
from generalist_core.experts import Expert
from generalist_core.models import build_model
from generalist_core.randomness import GeneratorNoise

ATTACK = PGD(epsilon=0.031, steps=10, relative_step_size=0.25)
OPTIMIZER = SGD(lr=0.01, weight_decay=5e-4)
DECAY = 0.9
CASES = {
    "convnet 16": (ModelConfig(width=16), (1, 28, 28), 64),
    "resnet18": (ModelConfig(name="resnet18"), (3, 32, 32), 32),
}


class Textbook:
    """Both experts as published implementations write them."""

    def __init__(self, model: nn.Module) -> None:
        self.models = [copy.deepcopy(model), copy.deepcopy(model)]
        self.averages = [copy.deepcopy(model.state_dict()) for _ in self.models]
        self.optimizers = [
            torch.optim.SGD(
                m.parameters(),
                OPTIMIZER.lr,
                OPTIMIZER.momentum,
                weight_decay=OPTIMIZER.weight_decay,
            )
            for m in self.models
        ]

    def step(self, x: Tensor, y: Tensor, seed: int) -> None:
        """The first expert trains on clean images, the second on attacked ones."""
        attacked = self.attack(self.models[1], x, y, seed)
        for i, images in enumerate((x, attacked)):
            self.models[i].train()
            self.optimizers[i].zero_grad()
            F.cross_entropy(self.models[i](images), y).backward()
            self.optimizers[i].step()
            for name, value in self.models[i].state_dict().items():
                if value.is_floating_point():
                    kept = DECAY * self.averages[i][name]
                    self.averages[i][name] = kept + (1 - DECAY) * value

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        """PGD, with the gradient of everything."""
        model.eval()
        source = torch.Generator().manual_seed(seed)
        uniform = torch.rand(x.shape, generator=source, dtype=x.dtype)
        attacked = (x + (2 * uniform - 1) * ATTACK.epsilon).clamp(0, 1)
        for _ in range(ATTACK.steps):
            attacked = attacked.detach().requires_grad_()
            F.cross_entropy(model(attacked), y, reduction="sum").backward()
            assert attacked.grad is not None
            step = ATTACK.relative_step_size * ATTACK.epsilon * attacked.grad.sign()
            delta = (attacked.detach() + step - x).clamp(-ATTACK.epsilon, ATTACK.epsilon)
            attacked = (x + delta).clamp(0, 1)
        return attacked.detach()


class Ours:
    """The same two experts of this package."""

    def __init__(self, model: nn.Module) -> None:
        mixing = MixingConfig(decay=DECAY, decay_warmup=False)
        configs = (
            ExpertConfig(name="natural", optimizer=OPTIMIZER),
            ExpertConfig(name="robust", attack=ATTACK, optimizer=OPTIMIZER),
        )
        self.experts = [
            Expert(c, copy.deepcopy(model), mixing, n_classes=10, precision="float32")
            for c in configs
        ]

    def step(self, x: Tensor, y: Tensor, seed: int) -> None:
        """The same step."""
        noise = GeneratorNoise(torch.Generator().manual_seed(seed))
        for expert in self.experts:
            expert.step(x, y, progress=0.0, noise=noise)


def disagreement(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The largest difference of any weight after a step in float64 (signs flip by rounding)."""
    textbook, ours = Textbook(model), Ours(model)
    textbook.step(x, y, 0)
    ours.step(x, y, 0)
    return max(
        float((a - b).abs().max())
        for model, expert in zip(textbook.models, ours.experts, strict=True)
        for a, b in zip(weights_of(model), expert.weights, strict=True)
    )


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}")
    print("model        batch  agreement  textbook s  ours s  ratio  share of bound")
    for name, (config, shape, batch) in CASES.items():
        model = build_model(config, 10, shape, seed=0)
        x, y = torch.rand(batch, *shape), torch.randint(10, (batch,))
        difference = disagreement(copy.deepcopy(model).double(), x[:4].double(), y[:4])
        assert difference < 1e-9, f"{name}: the steps differ by {difference}"
        textbook, ours = Textbook(model), Ours(model)
        times: list[tuple[float, float, float]] = []
        with torch.no_grad():
            model.eval()(x)
        for seed in range(repeats):
            with torch.no_grad():
                forward = seconds(lambda: model(x))  # noqa: B023
            slow = seconds(lambda: textbook.step(x, y, seed))  # noqa: B023
            fast = seconds(lambda: ours.step(x, y, seed))  # noqa: B023
            times.append((slow, fast, 26 * forward))
        slow, fast, bound = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"{name:<12} {batch:>5}  {difference:9.1e}  {slow:10.3f}  {fast:6.3f}  "
            f"{slow / fast:5.2f}  {bound / fast:14.0%}"
        )


if __name__ == "__main__":
    main()
