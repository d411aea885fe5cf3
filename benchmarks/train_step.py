"""A training step of both experts against a textbook step: agreement first, then time.

python -m benchmarks.train_step [--models resnet18] [--batch 32] [--out docs/results/FILE.json]
python -m benchmarks.train_step --models convnet resnet18 wrn-32-10 --batch 128 512   (on a GPU)

The textbook step is written like published implementations: the attack's gradients come from
`backward()`, with those of the weights; averages are updated tensor by tensor through state dicts;
images are augmented one by one; and each expert counts its training accuracy by another forward.
The bound is the work of 26 forwards, as PGD-10 and two updates need, at the measured time of one
forward of the plain model in the variant's precision. All variants are timed in one run,
interleaved, and compared by their medians. On a GPU, which does not wait for the end of a step, ten
of them are timed together; the most memory that they add to the weights and the fraction of the
card's dense bfloat16 rate are measured too.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from benchmarks.machine import dense_rate, environment, peak_mib, seconds
from benchmarks.textbook import textbook_pgd
from generalist_core.config import (
    PGD,
    SGD,
    DataConfig,
    EvaluationConfig,
    ExpertConfig,
    MixingConfig,
    ModelConfig,
    NamedAttack,
    Precision,
    SyncConfig,
    TrainConfig,
)
from generalist_core.data.splits import Batch, Dataset, Split, augment
from generalist_core.device import resolve_device, training_precision
from generalist_core.models.build import Shape, build_model
from generalist_core.randomness import GeneratorNoise
from generalist_core.training.averaging import weights_of
from generalist_core.training.forward import forward_of
from generalist_core.training.trainer import GeneralistTrainer
from search.files import write_json

ATTACK = PGD(epsilon=0.031, steps=10, relative_step_size=0.25)
OPTIMIZER = SGD(lr=0.01, weight_decay=5e-4)
DECAY = 0.9
N_ON_GPU = 10
RUN = TrainConfig(
    experts=(
        ExpertConfig(name="natural", optimizer=OPTIMIZER),
        ExpertConfig(name="robust", attack=ATTACK, optimizer=OPTIMIZER),
    ),
    mixing=MixingConfig(decay=DECAY, decay_warmup=False),
    sync=SyncConfig(start_epoch=0, every_epochs=10**6),
    evaluation=EvaluationConfig(attacks=(NamedAttack(name="robust", attack=ATTACK),)),
)
AUGMENTATION = DataConfig(crop_padding=4, flip=True)
MODELS: dict[str, tuple[ModelConfig, Shape]] = {
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
    "compiled": {**BOTH, "compile": True},
    "tfloat32": {**BOTH, "precision": "tfloat32"},
    "bfloat16": {**BOTH, "precision": "bfloat16"},
    "bfloat16, compiled": {**BOTH, "precision": "bfloat16", "compile": True},
    "bfloat16, graph": {**BOTH, "precision": "bfloat16", "cuda_graph": True},
    "bfloat16, compiled, graph": {
        **BOTH,
        "precision": "bfloat16",
        "compile": True,
        "cuda_graph": True,
    },
}
ON_CPU = ("plain", "folded", "channels_last", "both", "bfloat16")
ON_GPU = (
    "plain",
    "both",
    "tfloat32",
    "bfloat16",
    "bfloat16, compiled",
    "bfloat16, graph",
    "bfloat16, compiled, graph",
)


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

    def epoch_steps(self, n: int, x: Tensor, y: Tensor) -> None:
        """Steps as in an epoch."""
        for seed in range(n):
            self.epoch_step(x, y, seed)

    def epoch_step(self, x: Tensor, y: Tensor, seed: int) -> None:
        """Images are augmented before it, accuracies counted after it.

        A GPU does not wait for the augmentation, which the workers of a DataLoader do meanwhile.
        """
        if x.device.type == "cpu":
            crop = v2.RandomCrop(x.shape[-1], padding=4)
            transform = v2.Compose([crop, v2.RandomHorizontalFlip()])
            x = torch.stack([transform(image) for image in x])
        self.step(x, y, seed)
        with torch.no_grad():
            for model in self.models:
                (model.eval()(x).argmax(1) == y).sum().item()

    def step(self, x: Tensor, y: Tensor, seed: int) -> None:
        """The first expert trains on clean images, the second on attacked ones."""
        rng = torch.Generator(x.device).manual_seed(seed)
        attacked = textbook_pgd(ATTACK, self.models[1].eval(), x, y, rng)
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
    """The same two experts in co-training, with a global learner, by this package."""

    def __init__(self, model: nn.Module, x: Tensor, **fast: Any) -> None:
        if x.dtype == torch.float64:
            fast = {"precision": "float64", **fast}
        n = N_ON_GPU * len(x)
        images = Split(images=torch.rand(n, *x.shape[1:]), labels=torch.arange(n) % 10)
        self.trainer = GeneralistTrainer(
            replace(RUN, device=str(x.device), batch_size=len(x), **fast),
            Dataset(name="noise", train=images, validation=images),
            model=lambda *_: copy.deepcopy(model),
        )
        self.trainer.epoch = 1  # the first one begins with a sync

    def epoch_steps(self, n: int, x: Tensor, y: Tensor) -> None:
        """Steps as in an epoch."""
        rng = torch.Generator(x.device).manual_seed(0)
        self._learn(((augment(x, AUGMENTATION, rng), y) for _ in range(n)), x.device, 0)

    def step(self, x: Tensor, y: Tensor, seed: int) -> None:
        """One step, on images as they are."""
        self._learn([(x, y)], x.device, seed)

    def _learn(self, batches: Iterable[Batch], device: torch.device, seed: int) -> None:
        noise = GeneratorNoise(torch.Generator(device).manual_seed(seed))
        self.trainer.learn(self.trainer.experts, batches, [noise, noise])


def disagreement(model: nn.Module, x: Tensor, y: Tensor, **fast: Any) -> float:
    """The largest difference of any weight after a step in float64 (signs flip by rounding)."""
    textbook, ours = Textbook(model), Ours(model, x, **fast)
    textbook.step(x, y, 0)
    ours.step(x, y, 0)
    return max(
        float((a - b).abs().max())
        for model, expert in zip(textbook.models, ours.trainer.experts, strict=True)
        for a, b in zip(weights_of(model), expert.weights, strict=True)
    )


def forward(model: nn.Module, x: Tensor, precision: Precision) -> Tensor:
    """The plain model in eval mode, in the precision of a variant."""
    logits_of = forward_of(model.eval(), autocasts=precision == "bfloat16")
    with torch.no_grad(), training_precision(precision):
        return logits_of(x)


def precision_of(variant: str) -> Precision:
    """The precision of a variant; the textbook has torch's default, TF32 in convolutions."""
    return "tfloat32" if variant == "textbook" else replace(RUN, **VARIANTS[variant]).precision


def _forward_in(precision: Precision) -> str:
    """The name under which the time of a plain forward is kept."""
    return f"forward in {precision}"


def agreement(model: nn.Module, x: Tensor, y: Tensor, variants: Sequence[str]) -> float:
    """The largest disagreement of the exact variants; compiled ones are covered by a test."""
    model, x = copy.deepcopy(model).double(), x.double()
    changes = [VARIANTS[variant] for variant in variants]
    exact = [fast for fast in changes if not fast.keys() & {"precision", "compile"}]
    largest = max(disagreement(model, x, y, **fast) for fast in exact or [{}])
    assert largest < 1e-9, f"the steps differ by {largest}"
    return largest


def measure(
    config: ModelConfig,
    shape: Shape,
    batch: int,
    device: torch.device,
    *,
    variants: Sequence[str],
    repeats: int,
) -> dict[str, Any]:
    """Agreement, then medians of interleaved repeats; the first round is not counted."""
    torch.compiler.reset()  # the forwards of other models are of no use
    model = build_model(config, 10, shape, seed=0)
    x, y = torch.rand(batch, *shape), torch.randint(10, (batch,))
    agreed = agreement(model, x[:4], y[:4], variants)
    n_operations = 26 * batch * operations(model, shape)
    model, x, y = model.to(device), x.to(device), y.to(device)
    n_steps = 1 if device.type == "cpu" else N_ON_GPU
    steps: dict[str, Textbook | Ours] = {"textbook": Textbook(model)}
    steps |= {variant: Ours(model, x, **VARIANTS[variant]) for variant in variants}
    calls: dict[str, Callable[[], object]] = {
        _forward_in(precision): partial(forward, model, x, precision)
        for precision in dict.fromkeys(map(precision_of, steps))
    }
    calls |= {name: partial(step.epoch_steps, n_steps, x, y) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            times[name].append(seconds(call, device))
    n_timed = {name: n_steps if name in steps else 1 for name in calls}
    medians = {n: statistics.median(column[1:]) / n_timed[n] for n, column in times.items()}
    rate = dense_rate(device)
    return {
        "model": config.name,
        "batch": batch,
        "repeats": repeats,
        "agreement": agreed,
        "seconds": medians,
        "images_per_second": {v: batch / medians[v] for v in steps},
        "ratio_to_textbook": {v: medians["textbook"] / medians[v] for v in steps},
        "fraction_of_bound": {
            v: 26 * medians[_forward_in(precision_of(v))] / medians[v] for v in steps
        },
        "operations_per_second": {v: n_operations / medians[v] for v in steps},
        "assumed_dense_bfloat16_rate": rate,
        "fraction_of_dense_rate": rate and {v: n_operations / medians[v] / rate for v in steps},
        "peak_mib": {v: peak_mib(calls[v], device) for v in steps},
    }


def operations(model: nn.Module, shape: Shape) -> int:
    """Floating-point operations of one forward of one image, by torch's count."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).eval()(torch.zeros(1, *shape))
    return int(counter.get_total_flops())


def table(row: dict[str, Any]) -> str:
    """The figures of a model and batch size, one line per variant."""
    head = f"{row['model']}, batch {row['batch']}, agreement {row['agreement']:.0e}"
    lines = [
        head,
        "variant                    seconds  images/s  x textbook  of bound  of rate  peak MiB",
    ]
    for variant, speed in row["images_per_second"].items():
        fractions = row["fraction_of_dense_rate"]
        peak = row["peak_mib"][variant]
        lines.append(
            f"{variant:<25}  {row['seconds'][variant]:7.3f}  {speed:8.1f}  "
            f"{row['ratio_to_textbook'][variant]:10.2f}  {row['fraction_of_bound'][variant]:8.0%}  "
            f"{'-' if fractions is None else format(fractions[variant], '.0%'):>7}  "
            f"{'-' if peak is None else format(peak, '.0f'):>8}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print a table per model and batch; write all figures with hardware and versions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["convnet", "resnet18"], choices=MODELS)
    parser.add_argument(
        "--width", type=int, help="width of the models; by default the published one"
    )
    parser.add_argument(
        "--batch", type=int, nargs="+", help="batch sizes; by default 32, on a GPU 128 and 512"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    on_cpu = device.type == "cpu"
    print(environment(device))
    rows = []
    for name in options.models:
        config, shape = MODELS[name]
        config = replace(config, width=options.width or config.width)
        for batch in options.batch or ([32] if on_cpu else [128, 512]):
            variants = options.variants or (ON_CPU if on_cpu else ON_GPU)
            rows.append(
                measure(config, shape, batch, device, variants=variants, repeats=options.repeats)
            )
            print(table(rows[-1]), flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, {"environment": environment(device), "rows": rows})


if __name__ == "__main__":
    main()
