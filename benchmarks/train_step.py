"""A training step of both experts against a textbook step: agreement first, then time.

python -m benchmarks.train_step [--models resnet18] [--batch 32] [--out docs/results/FILE.json]

The textbook step is written as published implementations are: the attack's gradients come from
`backward()`, with those of the weights; averages go tensor by tensor through state dicts; images
are augmented one by one; a forward of each expert counts training accuracy. The bound is the 26
forwards' worth of work that PGD-10 and two updates need, at the measured time of one forward of the
plain model. All is timed in one run, interleaved; medians count.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmarks.textbook import textbook_pgd
from generalist_core.averaging import weights_of
from generalist_core.config import (
    PGD,
    SGD,
    DataConfig,
    EvaluationConfig,
    ExpertConfig,
    MixingConfig,
    ModelConfig,
    NamedAttack,
    TrainConfig,
)
from generalist_core.data import augment
from generalist_core.experts import Expert
from generalist_core.models import build_model
from generalist_core.randomness import GeneratorNoise
from search.files import write_json

ATTACK = PGD(epsilon=0.031, steps=10, relative_step_size=0.25)
OPTIMIZER = SGD(lr=0.01, weight_decay=5e-4)
DECAY = 0.9
RUN = TrainConfig(
    experts=(
        ExpertConfig(name="natural", optimizer=OPTIMIZER),
        ExpertConfig(name="robust", attack=ATTACK, optimizer=OPTIMIZER),
    ),
    mixing=MixingConfig(decay=DECAY, decay_warmup=False),
    evaluation=EvaluationConfig(attacks=(NamedAttack(name="robust", attack=ATTACK),)),
)
AUGMENTATION = DataConfig(crop_padding=4, flip=True)
MODELS = {
    "convnet": (ModelConfig(width=16), (1, 28, 28)),
    "resnet18": (ModelConfig(name="resnet18"), (3, 32, 32)),
    "wrn-32-10": (ModelConfig(name="wrn-32-10"), (3, 32, 32)),
}
BOTH = {"fold_batchnorm": True, "channels_last": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "folded": {"fold_batchnorm": True},
    "channels_last": {"channels_last": True},
    "both": BOTH,
    "both, bfloat16": {**BOTH, "precision": "bfloat16"},
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

    def epoch_step(self, x: Tensor, y: Tensor, seed: int) -> None:
        """A step as in an epoch: images augmented before it, accuracies counted behind."""
        crop = v2.RandomCrop(x.shape[-1], padding=4)
        transform = v2.Compose([crop, v2.RandomHorizontalFlip()])
        x = torch.stack([transform(image) for image in x])
        self.step(x, y, seed)
        with torch.no_grad():
            for model in self.models:
                (model.eval()(x).argmax(1) == y).sum().item()

    def step(self, x: Tensor, y: Tensor, seed: int) -> None:
        """The first expert trains on clean images, the second on attacked ones."""
        source = torch.Generator(x.device).manual_seed(seed)
        attacked = textbook_pgd(ATTACK, self.models[1].eval(), x, y, source)
        for i, images in enumerate((x, attacked)):
            self.models[i].train()
            self.optimizers[i].zero_grad()
            F.cross_entropy(self.models[i](images), y).backward()
            self.optimizers[i].step()
            for name, value in self.models[i].state_dict().items():
                if value.is_floating_point():
                    kept = DECAY * self.averages[i][name]
                    self.averages[i][name] = kept + (1 - DECAY) * value


class Ours:
    """The same two experts of this package."""

    def __init__(self, model: nn.Module, **fast: Any) -> None:
        run = replace(RUN, **fast)
        self.experts = [
            Expert(config, copy.deepcopy(model), run, n_classes=10) for config in run.experts
        ]

    def epoch_step(self, x: Tensor, y: Tensor, seed: int) -> None:
        """A step as in an epoch."""
        source = torch.Generator(x.device).manual_seed(seed)
        self.step(augment(x, AUGMENTATION, source), y, seed)

    def step(self, x: Tensor, y: Tensor, seed: int) -> None:
        """The same step."""
        noise = GeneratorNoise(torch.Generator(x.device).manual_seed(seed))
        for expert in self.experts:
            expert.step(x, y, progress=0.0, noise=noise)


def disagreement(model: nn.Module, x: Tensor, y: Tensor, **fast: Any) -> float:
    """The largest difference of any weight after a step in float64 (signs flip by rounding)."""
    textbook, ours = Textbook(model), Ours(model, **fast)
    textbook.step(x, y, 0)
    ours.step(x, y, 0)
    return max(
        float((a - b).abs().max())
        for model, expert in zip(textbook.models, ours.experts, strict=True)
        for a, b in zip(weights_of(model), expert.weights, strict=True)
    )


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """How long one call takes, with all that it has started."""
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(name: str, batch: int, device: torch.device, repeats: int) -> dict[str, Any]:
    """Agreement of all exact variants of a model, then medians of interleaved repeats."""
    config, shape = MODELS[name]
    model = build_model(config, 10, shape, seed=0)
    x, y = torch.rand(batch, *shape), torch.randint(10, (batch,))
    small = (copy.deepcopy(model).double(), x[:4].double(), y[:4])
    exact = (fast for fast in VARIANTS.values() if "precision" not in fast)
    agreement = max(disagreement(*small, **fast) for fast in exact)
    assert agreement < 1e-9, f"{name}: the steps differ by {agreement}"
    model, x, y = model.to(device), x.to(device), y.to(device)
    steps: dict[str, Textbook | Ours] = {"textbook": Textbook(model)}
    for variant, fast in VARIANTS.items():
        if device.type == "cuda" or "precision" not in fast:
            steps[variant] = Ours(model, **fast)
    model.eval().requires_grad_(False)
    times: dict[str, list[float]] = {"forward": [], **{variant: [] for variant in steps}}
    for seed in range(repeats + 1):
        times["forward"].append(seconds(lambda: model(x), device))
        for variant, ours in steps.items():
            step = ours.epoch_step
            times[variant].append(seconds(lambda: step(x, y, seed), device))  # noqa: B023
    medians = {variant: statistics.median(column[1:]) for variant, column in times.items()}
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {
        "model": name,
        "batch": batch,
        "agreement": agreement,
        "seconds": medians,
        "images_per_second": {v: batch / medians[v] for v in steps},
        "ratio_to_textbook": {v: medians["textbook"] / medians[v] for v in steps},
        "share_of_bound": {v: 26 * medians["forward"] / medians[v] for v in steps},
        "peak_mib": peak,
    }


def table(row: dict[str, Any]) -> str:
    """One line a variant."""
    head = f"{row['model']}, batch {row['batch']}, agreement {row['agreement']:.0e}"
    lines = [head, "variant             seconds  images/s  x textbook  share of bound"]
    lines += [
        f"{variant:<18}  {row['seconds'][variant]:7.3f}  {speed:8.1f}  "
        f"{row['ratio_to_textbook'][variant]:10.2f}  {row['share_of_bound'][variant]:14.0%}"
        for variant, speed in row["images_per_second"].items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Print a table a model, and write all figures with hardware and versions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["convnet", "resnet18"], choices=MODELS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    environment = {
        "hardware": hardware,
        "threads": options.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(environment)
    rows = []
    for name in options.models:
        rows.append(measure(name, options.batch, device, options.repeats))
        print(table(rows[-1]), flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, {"environment": environment, "rows": rows})


if __name__ == "__main__":
    main()
