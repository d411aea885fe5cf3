"""Full epochs of a training of CIFAR-10's size, alone and several side by side on one device.

python -m benchmarks.epochs [--model resnet18] [--side-by-side 2 4] [--out docs/results/FILE.json]
python -m benchmarks.epochs --device cpu --model convnet --width 4 --n-images 256 --epochs 1

The images are noise, in the number and size of CIFAR-10's; a step's time does not depend on their
content. The benchmark measures epochs of the robust warm-up, epochs of co-training (both experts),
an evaluation on 1,000 images and a release, each after one of its kind that is not counted. The
time of a run of 120 epochs by the `paper` preset is extrapolated from the medians: 75 epochs of
warm-up, in which the natural expert is not trained because the first sync would overwrite it, 45 of
co-training, an evaluation every 10 epochs, and a release.

Trials side by side are processes that train co-training epochs at the same time. Their joint
throughput is the number of all their images over the time of the slowest, compared with that of one
process alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from benchmarks.machine import environment
from generalist_core.config import DataConfig, ModelConfig, Precision
from generalist_core.config.presets import paper
from generalist_core.data.splits import Dataset, Split
from generalist_core.device import resolve_device
from generalist_core.training.trainer import GeneralistTrainer
from search.files import write_json

DATA = DataConfig(name="noise", n_validation=1000, crop_padding=4, flip=True)
LIMIT_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One trial, in a form that can be sent to another process."""

    model: str
    width: int | None
    n_images: int
    batch: int
    epochs: int
    device: str
    precision: Precision
    compile: bool
    cuda_graph: bool
    threads: int


def images(n: int, seed: int) -> Split:
    """Noise in bytes, in ten classes."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randint(256, (n, 3, 32, 32), generator=rng, dtype=torch.uint8)
    return Split(images=noise, labels=torch.arange(n) % 10)


def start(setting: Setting) -> GeneralistTrainer:
    """A trainer of the `paper` preset with equally many epochs before and after the first sync."""
    torch.set_num_threads(setting.threads)
    model = ModelConfig(name=setting.model, width=setting.width)
    config = paper(data=DATA, model=model, epochs=2 * (setting.epochs + 1))
    config = replace(
        config,
        sync=replace(config.sync, start_epoch=setting.epochs + 1, every_epochs=1),
        batch_size=setting.batch,
        precision=setting.precision,
        compile=setting.compile,
        cuda_graph=setting.cuda_graph,
        device=setting.device,
    )
    n_validation = min(DATA.n_validation, setting.n_images)
    data = Dataset(
        name="noise", train=images(setting.n_images, 0), validation=images(n_validation, 1)
    )
    return GeneralistTrainer(config, data)


def alone(setting: Setting) -> dict[str, Any]:
    """One trial that has the device to itself, extrapolated to 120 epochs."""
    trainer = start(setting)
    measured = [trainer.train_epoch()["seconds"] for _ in range(trainer.config.epochs)]
    half = len(measured) // 2
    warmup, cotraining = (
        statistics.median(part[1:]) for part in (measured[:half], measured[half:])
    )
    judgement, release = (
        [duration(call) for _ in range(2)][1] for call in (trainer.evaluate, trainer.release)
    )
    whole = paper()
    n_warmup, n_judgements = whole.sync.start_epoch, whole.epochs // whole.evaluation.every_epochs
    n_cotraining = whole.epochs - n_warmup
    total = n_warmup * warmup + n_cotraining * cotraining + n_judgements * judgement + release
    return {
        "epoch_seconds": measured,
        "seconds": {
            "warm-up epoch, robust expert": warmup,
            "co-training epoch": cotraining,
            "judgement": judgement,
            "release": release,
        },
        "images_per_second": setting.n_images // setting.batch * setting.batch / cotraining,
        "minutes_of_120_epochs": total / 60,
        "minutes_of_120_epochs_without_skipping": (total + n_warmup * (cotraining - warmup)) / 60,
        "peak_mib": peak(trainer.device),
    }


def duration(function: Callable[[], object]) -> float:
    """The seconds of wall-clock time that a function takes, which waits for its results."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def peak(device: torch.device) -> float | None:
    """The most memory, in MiB, that torch held on a GPU since the process began."""
    if device.type == "cpu":
        return None
    return float(torch.get_device_module(device).max_memory_allocated(device)) / 2**20


def side_by_side(setting: Setting, n_trials: int) -> float:
    """Images per second of all trials together, in co-training."""
    context = mp.get_context("spawn")
    barrier, queue = context.Barrier(n_trials), context.Queue()
    split = replace(setting, threads=max(1, setting.threads // n_trials))
    trials = [context.Process(target=trial, args=(split, barrier, queue)) for _ in range(n_trials)]
    for process in trials:
        process.start()
    spans = [queue.get(timeout=LIMIT_S) for _ in trials]
    for process in trials:
        process.join()
    duration_s = max(end for _, end in spans) - min(begin for begin, _ in spans)
    n_images = setting.n_images // setting.batch * setting.batch
    return float(n_trials * setting.epochs * n_images / duration_s)


def trial(setting: Setting, barrier: Any, queue: Any) -> None:
    """One process: an epoch that is not counted, then timed epochs together with the others.

    It co-trains from the start, so that both experts are trained. Its begin and end, by the
    machine's clock, go to the queue.
    """
    trainer = start(setting)
    trainer.epoch = trainer.config.sync.start_epoch
    trainer.train_epoch()
    barrier.wait(LIMIT_S)
    begin = time.monotonic()
    for _ in range(setting.epochs):
        trainer.train_epoch()
    queue.put((begin, time.monotonic()))


def report(one: dict[str, Any], joint: dict[int, float]) -> str:
    """The figures of one trial alone and of several, one per line."""
    lines = [f"{name:<32} {value:9.2f} s" for name, value in one["seconds"].items()]
    lines.append(f"{'120 epochs, extrapolated':<32} {one['minutes_of_120_epochs']:9.2f} min")
    both = one["minutes_of_120_epochs_without_skipping"]
    lines.append(f"{'  with both experts throughout':<32} {both:9.2f} min")
    lines += [
        f"{f'{n} side by side':<32} {speed:9.1f} images/s, {speed / joint[1]:.2f} x one alone"
        for n, speed in joint.items()
    ]
    return "\n".join(lines)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18")
    parser.add_argument(
        "--width", type=int, help="width of the model; by default the published one"
    )
    parser.add_argument("--n-images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--epochs", type=int, default=3, help="number of epochs measured of each kind"
    )
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--cuda-graph", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--side-by-side", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, and write them together with hardware and versions."""
    options = parsed(arguments)
    device = resolve_device(options.device)
    setting = Setting(
        model=options.model,
        width=options.width,
        n_images=options.n_images,
        batch=options.batch,
        epochs=options.epochs,
        device=str(device),
        precision=options.precision,
        compile=device.type != "cpu" if options.compile is None else options.compile,
        cuda_graph=options.cuda_graph,
        threads=options.threads,
    )
    one = alone(setting)
    joint = {n: side_by_side(setting, n) for n in (1, *options.side_by_side)}
    print(environment(device))
    print(report(one, joint))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "environment": environment(device) | {"clock": "wall"},
            "setting": asdict(setting),
            "alone": one,
            "joint_images_per_second": joint,
        }
        write_json(options.out, document)


if __name__ == "__main__":
    main()
