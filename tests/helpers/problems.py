"""Models with closed-form answers, a tiny data set and tiny runs that the tests share."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generalist_core.attacks.gradient import n_gradients
from generalist_core.config import (
    FGSM,
    MART,
    NFGSM,
    PGD,
    SGD,
    TRADES,
    Adam,
    AdamW,
    Attack,
    Cosine,
    CutMix,
    DataConfig,
    EvaluationConfig,
    ExpertConfig,
    MixingConfig,
    MixUp,
    ModelConfig,
    MultiTargeted,
    NamedAttack,
    OneCycle,
    PiecewiseLinear,
    RatioSchedule,
    RMSprop,
    SeveralAttacks,
    SyncConfig,
    TrainConfig,
)
from generalist_core.data.splits import Dataset, Split
from generalist_core.randomness import GeneratorNoise
from generalist_core.training.trainer import GeneralistTrainer

# Models


class LinearNet(nn.Module):
    """Two classes with logits (0, <w, x> + b): every attack's optimum has a closed form."""

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(shape, generator=source, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros((), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.weight).flatten(1).sum(1) + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)

    def ascent(self, y: Tensor) -> Tensor:
        """The gradient of the margin of images with labels `y`, the same everywhere."""
        return (1 - 2 * y).view(-1, 1, 1, 1) * self.weight.detach()

    def margin(self, x: Tensor, y: Tensor) -> Tensor:
        """Wrong logit minus true logit, (n,)."""
        return (1 - 2 * y) * self(x).detach()[:, 1]


def linear_net(n_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    assert n_classes == 2
    return LinearNet(shape, torch.float32)


def dropout_net(n_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    n_pixels = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(n_pixels, n_classes))


def linear_optimum(norm: str, model: LinearNet, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """The images of largest margin in ball and box; for l2 only if the box is not reached."""
    ascent = model.ascent(y)
    if norm == "linf":
        return (x + epsilon * ascent.sign()).clamp(0, 1)
    if norm == "l2":
        return x + epsilon * ascent / ascent.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    best = x.clone().flatten(1)
    for pixels, direction in zip(best, ascent.flatten(1), strict=True):
        left = epsilon
        for i in direction.abs().argsort(descending=True):
            room = float(1 - pixels[i] if direction[i] > 0 else pixels[i])
            pixels[i] += direction[i].sign() * min(room, left)
            left -= min(room, left)
    return best.view_as(x)


class Counting(nn.Module):
    """A model that counts the images it has seen, and the times it was called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.n_calls = 0
        self.n_images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_calls += 1
        self.n_images += len(x)
        logits: Tensor = self.model(x)
        return logits


def noise(seed: int = 0) -> GeneratorNoise:
    return GeneratorNoise(torch.Generator().manual_seed(seed))


def random_images(
    *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return low + (high - low) * uniform


NORM_ORDERS = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}


def lengths(delta: Tensor, norm: str) -> Tensor:
    """The norm of each image's perturbation, (n,)."""
    return torch.linalg.vector_norm(delta.flatten(1), ord=NORM_ORDERS[norm], dim=1)


RADII = {"linf": 0.1, "l2": 0.5, "l1": 2.0}

BOUNDED_ATTACKS: list[FGSM | PGD] = [
    attack
    for norm, epsilon in RADII.items()
    for attack in (
        FGSM(epsilon=epsilon, norm=norm),
        PGD(epsilon=epsilon, norm=norm, steps=3),
        PGD(epsilon=epsilon, norm=norm, steps=2, random_start=False, relative_step_size=3.0),
        PGD(epsilon=epsilon, norm=norm, steps=4, momentum=1.0, loss="margin"),
        PGD(epsilon=epsilon, norm=norm, steps=3, loss="kl"),
    )
]

TARGETED = [
    MultiTargeted(epsilon=epsilon, norm=norm, steps=3, n_targets=2)
    for norm, epsilon in RADII.items()
]

ATTACKS: list[Attack] = [
    *BOUNDED_ATTACKS,
    NFGSM(epsilon=0.1),
    NFGSM(epsilon=0.2, noise_scale=0.0, relative_step_size=1.25),
]


def n_forwards(attack: Attack) -> int:
    """Calls of the model that one attack may make: one per gradient, and one for KL's target."""
    return n_gradients(attack) + (isinstance(attack, PGD) and attack.loss == "kl")


# Data


def tiny_split(n: int, *, n_classes: int = 2, seed: int = 0) -> Split:
    """Noisy copies (1, 4, 4) of one pattern per class: easy to learn, but not at once."""
    patterns = torch.rand(n_classes, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(n) % n_classes
    jitter = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Split(images=0.6 * patterns[labels] + 0.4 * jitter, labels=labels)


def tiny_dataset() -> Dataset:
    return Dataset(name="tiny", train=tiny_split(20), validation=tiny_split(12, seed=1))


def write_idx(path: Path, values: Tensor) -> bytes:
    """Write bytes in the format of MNIST's files; returns what was written."""
    header = bytes([0, 0, 8, values.dim()]) + struct.pack(f">{values.dim()}I", *values.shape)
    content = header + values.to(torch.uint8).numpy().tobytes()
    path.write_bytes(content)
    return content


# Runs


NATURAL = ExpertConfig(name="natural", optimizer=SGD(lr=0.1))
ROBUST = ExpertConfig(name="robust", attack=PGD(epsilon=0.1, steps=2), optimizer=SGD(lr=0.05))
NORM_ATTACKS = (
    PGD(epsilon=0.1, steps=2),
    PGD(epsilon=0.5, norm="l2", steps=2),
    PGD(epsilon=1.0, norm="l1", steps=2),
)
SPARSE = ExpertConfig(name="sparse", attack=PGD(epsilon=1.0, norm="l1", steps=2))


def ratio(*values: float | tuple[float, ...], **others: Any) -> MixingConfig:
    """A mixing ratio from its first to its last value, and other fields of MixingConfig."""
    ends = (values[0], values[-1])
    return MixingConfig(ratio=RatioSchedule(values=ends), **{"decay": 0.9, **others})


def two_experts(**changes: Any) -> TrainConfig:
    """Five epochs of two batches; syncs before epochs 2 and 4."""
    config = TrainConfig(
        data=DataConfig(name="tiny", n_validation=12, crop_padding=1, flip=True),
        model=ModelConfig(name="convnet", width=2),
        experts=(NATURAL, ROBUST),
        mixing=ratio(0.3),
        sync=SyncConfig(start_epoch=2, every_epochs=2),
        evaluation=EvaluationConfig(
            attacks=(NamedAttack(name="robust", attack=PGD(epsilon=0.1, steps=2)),),
            release_ratios=(0.0, 0.5, 1.0),
            n_refinements=0,
        ),
        epochs=5,
        batch_size=8,
        device="cpu",
    )
    return dataclasses.replace(config, **changes)


def three_experts(**changes: Any) -> TrainConfig:
    """As `two_experts`, with one more in another norm."""
    config = two_experts()
    evaluation = dataclasses.replace(
        config.evaluation,
        attacks=(
            *config.evaluation.attacks,
            NamedAttack(name="sparse", attack=FGSM(epsilon=1.0, norm="l1")),
        ),
        release_ratios=((1.0, 0.0, 0.0), (0.2, 0.3, 0.5)),
    )
    together = {
        "experts": (NATURAL, ROBUST, SPARSE),
        "mixing": ratio((0.2, 0.3, 0.5)),
        "evaluation": evaluation,
    }
    return dataclasses.replace(config, **{**together, **changes})


def with_expert(config: TrainConfig, name: str, **changes: Any) -> TrainConfig:
    """`config` with fields of one expert replaced."""
    experts = tuple(
        dataclasses.replace(expert, **changes) if expert.name == name else expert
        for expert in config.experts
    )
    return dataclasses.replace(config, experts=experts)


def synced(**changes: Any) -> TrainConfig:
    """As `two_experts`, with other syncs."""
    return two_experts(sync=SyncConfig(**{"start_epoch": 2, "every_epochs": 2, **changes}))


def sliding(*values: float, start_epoch: int = 2) -> TrainConfig:
    """As `synced`, with a ratio that is linear in 2 + 3 epochs."""
    mixing = dataclasses.replace(
        ratio(0.5), ratio=RatioSchedule(knots=(0, 0.4, 1), values=tuple(values))
    )
    return dataclasses.replace(synced(start_epoch=start_epoch), mixing=mixing)


RUNS: dict[str, TrainConfig] = {
    "paper": two_experts(),
    "official": two_experts(
        mixing=ratio(1.0, 0.4, source="averages"),
        sync=SyncConfig(start_epoch=2, every_epochs=2, at="every_step"),
        epoch_progress="end",
    ),
    "restarting": two_experts(
        sync=SyncConfig(
            start_epoch=2, every_epochs=2, restart_momentum=True, restart_averages=True
        ),
        precision="float64",
    ),
    "adamw, trades": with_expert(
        two_experts(),
        "robust",
        optimizer=AdamW(lr=0.01),
        loss=TRADES(),
        attack=PGD(epsilon=0.1, steps=2, loss="kl"),
        schedule=OneCycle(),
    ),
    "mixup, mart": with_expert(
        with_expert(two_experts(), "natural", batch_augmentation=MixUp(), label_smoothing=0.1),
        "robust",
        loss=MART(),
        attack=PGD(epsilon=0.5, norm="l2", steps=2, momentum=1.0),
        schedule=PiecewiseLinear(knots=(0, 0.5, 1), values=(1, 1, 0.1), per_step=True),
    ),
    "cutmix, adam, rmsprop": with_expert(
        with_expert(
            two_experts(),
            "natural",
            batch_augmentation=CutMix(),
            optimizer=Adam(),
            schedule=Cosine(),
        ),
        "robust",
        attack=NFGSM(epsilon=0.1),
        optimizer=RMSprop(momentum=0.5),
    ),
    "cutmix under attack, trades with mixup": with_expert(
        three_experts(
            experts=(NATURAL, ROBUST, dataclasses.replace(SPARSE, batch_augmentation=CutMix()))
        ),
        "robust",
        batch_augmentation=MixUp(alpha=1.0),
        loss=TRADES(),
        attack=PGD(epsilon=0.1, steps=2, loss="kl"),
        label_smoothing=0.1,
    ),
    "three experts": three_experts(mixing=ratio((0.2, 0.3, 0.5), (0.6, 0.4, 0.0))),
    **{
        f"{combine} of norms": with_expert(
            two_experts(), "robust", attack=SeveralAttacks(parts=NORM_ATTACKS, combine=combine)
        )
        for combine in ("worst", "steepest", "average", "random", "adaptive")
    },
    "clipped, rising rates": with_expert(
        with_expert(
            two_experts(),
            "natural",
            max_gradient_norm=0.05,
            lr_warmup_epochs=1.5,
            schedule=Cosine(),
        ),
        "robust",
        max_gradient_norm=0.1,
        lr_warmup_epochs=3,
        schedule=PiecewiseLinear(knots=(0, 1), values=(1, 0.5)),
    ),
    "frozen": two_experts(
        model=ModelConfig(name="convnet", width=2, frozen=("0.*", "*.bias")),
        sync=SyncConfig(start_epoch=2, every_epochs=2, at="every_step"),
    ),
    "dropout": two_experts(model=ModelConfig(name="tests.helpers.problems:dropout_net")),
    "bfloat16": two_experts(precision="bfloat16"),
    "synced from the start": two_experts(sync=SyncConfig(start_epoch=0, every_epochs=3)),
    "resting": with_expert(two_experts(), "robust", rests=True),
}


def start(config: TrainConfig, data: Dataset | None = None, **others: Any) -> GeneralistTrainer:
    return GeneralistTrainer(config, data or tiny_dataset(), **others)


def train_to(trainer: GeneralistTrainer, epoch: int) -> GeneralistTrainer:
    while trainer.epoch < epoch:
        trainer.train_epoch()
    return trainer


def resumed(config: TrainConfig, checkpoint: Path) -> GeneralistTrainer:
    trainer = GeneralistTrainer(config, tiny_dataset())
    trainer.load_state_dict(torch.load(checkpoint, weights_only=True))
    return trainer


def finish_runs(folder: str) -> None:
    """Continue every checkpoint NAME@EPOCH.pt in `folder` to its end, saved as NAME@EPOCH.end."""
    torch.set_num_threads(1)
    for checkpoint in sorted(Path(folder).glob("*.pt")):
        config = RUNS[checkpoint.stem.partition("@")[0]]
        trainer = train_to(resumed(config, checkpoint), config.epochs)
        torch.save(trainer.state_dict(), checkpoint.with_suffix(".end"))


def same_bits(a: Any, b: Any) -> bool:
    """Whether two nested states are equal to the last bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, Sequence) and not isinstance(a, str):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return bool(a == b)


def largest_difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return max(np.abs(x.numpy() - y.numpy()).max() for x, y in zip(a, b, strict=True))


def clones(weights: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in weights]


def write_image_folder(folder: Path) -> None:
    """Eight random images of each of the classes a and b, in train/ and in test/."""
    from PIL import Image

    places = [folder / part / name for part in ("train", "test") for name in "ab"]
    images = (random_images(4, 8, 8, 8, 3) * 255).byte().numpy()
    for place, own in zip(places, images, strict=True):
        place.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(own):
            Image.fromarray(image).save(place / f"{i}.png")
