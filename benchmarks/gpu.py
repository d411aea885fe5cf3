"""What a GPU is to show, in one command of a few minutes: agreement, then speed.

python -m benchmarks.gpu [--out docs/results/gpu.json]
python -m benchmarks.gpu --device cpu --model convnet --width 1 --n-images 64   (a trial of it)

`agreement`: recorded steps against steps that run as they are, by the weights after 20 of them in
float32. `trials`: how long the first and the tenth trial of a process take to begin.
`accuracies`: a short training of the digits in float32, and in bfloat16, compiled and recorded.
`tests`: those that need a GPU. `steps`: `benchmarks.train_step`, on a GPU of WRN-32-10
too. `epochs`: `benchmarks.epochs`. `sweep`: six short trials without Ray, and how busy nvidia-smi
sees the GPU; it needs optuna. What is done is printed and written at once, so that a run that is
cut keeps it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks import epochs, train_step
from benchmarks.machine import environment
from generalist_core.config import ModelConfig, TrainConfig
from generalist_core.config.presets import short
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.device import resolve_device
from generalist_core.training.averaging import Weights
from generalist_core.training.recording import distance
from generalist_core.training.trainer import GeneralistTrainer
from search.files import write_json

N_TRIALS = 10

EXACT: dict[str, Any] = {"precision": "float32", "compile": False, "cuda_graph": False}
N_STEPS = 20


def noise(n_images: int) -> Dataset:
    """Images of noise in the size of CIFAR-10's."""
    train, validation = epochs.images(n_images, 0), epochs.images(max(10, n_images // 10), 1)
    return Dataset(name="noise", train=train, validation=validation)


def fast(options: argparse.Namespace) -> dict[str, Any]:
    """The fields that make a training fast; a CPU records nothing, and compiles slowly."""
    on_gpu = resolve_device(options.device).type != "cpu"
    return {"precision": "bfloat16", "compile": on_gpu, "cuda_graph": True}


def model_of(options: argparse.Namespace) -> ModelConfig:
    """The model that steps, epochs and sweep train."""
    return ModelConfig(name=options.model, width=options.width)


def agreement(options: argparse.Namespace) -> dict[str, Any]:
    """The distance of the weights after recorded steps, over how far the steps took them."""
    data = noise(N_STEPS * options.batch)
    run = replace(
        train_step.RUN,
        model=model_of(options),
        device=options.device,
        batch_size=options.batch,
        epochs=2,
    )
    trainers = [GeneralistTrainer(replace(run, cuda_graph=on), data) for on in (False, True)]
    begun = [tensor.clone() for tensor in all_weights(trainers[0])]
    for trainer in trainers:
        trainer.train_epoch()
    plain, recorded = map(all_weights, trainers)
    return {
        "recorded": trainers[1].replays,
        "relative_distance": distance(plain, recorded) / distance(plain, begun),
    }


def all_weights(trainer: GeneralistTrainer) -> Weights:
    """The weights of all experts, and of the global learner."""
    experts = [tensor for expert in trainer.experts for tensor in expert.weights]
    return [*experts, *trainer.global_learner]


def trials(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to build the trainer, and of its first and second epoch, of trials in one process.

    All compile and record the same; what they share need not be made again.
    """
    data, rows = noise(N_STEPS * options.batch), []
    run = replace(train_step.RUN, model=model_of(options), batch_size=options.batch, epochs=3)
    for _ in range(N_TRIALS):
        times = [time.perf_counter()]
        trainer = GeneralistTrainer(replace(run, device=options.device, **fast(options)), data)
        times.append(time.perf_counter())
        for _ in range(2):
            trainer.train_epoch()
            times.append(time.perf_counter())
        seconds = [after - before for before, after in pairwise(times)]
        rows.append(dict(zip(("build", "first_epoch", "second_epoch"), seconds, strict=True)))
    return {"first": rows[0], "last": rows[-1]}


def accuracies(options: argparse.Namespace) -> dict[str, Any]:
    """The accuracies of the mixture at 0.5 after a short training of the digits."""
    found: dict[str, Any] = {}
    for name, fields in (("exact", EXACT), ("fast", fast(options))):
        config = replace(short(epochs=options.epochs * 4), device=options.device, **fields)
        trainer = GeneralistTrainer(config, load_dataset(config.data))
        while not trainer.is_done:
            trainer.train_epoch()
        (point,) = trainer.release([0.5])
        found[name] = {**point.accuracies, "recorded": trainer.replays}
    return found


def steps(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rates of single steps, with and without a recording."""
    device, rows = resolve_device(options.device), []
    on_gpu = device.type != "cpu"
    wanted = [v for v in train_step.VARIANTS if v.startswith("bfloat16") or v == "tfloat32"]
    wide = ModelConfig(name="wrn-32-10")
    cases = [(model_of(options), options.batch, wanted if on_gpu else ["bfloat16"])]
    if on_gpu:
        cases += [(model_of(options), 4 * options.batch, wanted), (wide, 128, wanted[-1:])]
    for model, batch, variants in cases:
        row = train_step.measure(model, (3, 32, 32), batch, device, variants=variants, repeats=3)
        print(train_step.table(row), flush=True)
        rows.append(row)
    return rows


def tests(options: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001
    """Whether the tests that need a GPU pass; without one they are skipped."""
    file = Path(__file__).parents[1] / "tests/generalist_core/training/test_recording.py"
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-k", "gpu", str(file)]
    run = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    return {"passed": run.returncode == 0, "last_lines": run.stdout.splitlines()[-10:]}


def whole_epochs(options: argparse.Namespace) -> dict[str, Any]:
    """Epochs of the trainer, alone and side by side."""
    setting = epochs.Setting(
        model=options.model,
        width=options.width,
        n_images=options.n_images,
        batch=options.batch,
        epochs=1,
        device=options.device,
        **fast(options),
        threads=torch.get_num_threads(),
    )
    one = epochs.alone(setting)
    joint = {n: epochs.side_by_side(setting, n) for n in (1, *options.side_by_side)}
    print(epochs.report(one, joint), flush=True)
    return {"alone": one, "joint_images_per_second": joint}


def whole_sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Six trials one after the other in this process, and the GPU meanwhile."""
    from search import Resources, SweepConfig, sweep

    base: TrainConfig = short(model=model_of(options), epochs=6, epsilon=8 / 255)
    base = replace(base, device=options.device, batch_size=options.batch, **fast(options))
    request = SweepConfig(base=base, space="full", trials=6, resources=Resources(local=True))
    data = noise(options.n_images // 5)
    with tempfile.TemporaryDirectory() as folder, Load() as load:
        out, started = Path(folder) / "sweep", time.perf_counter()
        finished = sweep(replace(request, early_stopping=None), out, data=data)
        seconds = time.perf_counter() - started
        n_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        return {
            "seconds": seconds,
            "training_seconds": finished.results.cost()["seconds"],
            "mib": n_bytes / 2**20,
            "busy": load.samples,
        }


class Load:
    """The utilisation of the GPU in percent, once a second; nothing without a GPU."""

    def __init__(self) -> None:
        self.samples: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def _sample(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._ended.wait(1):
            seen = subprocess.run(query, check=True, capture_output=True, text=True).stdout  # noqa: S603
            self.samples.append(float(seen.split()[0]))

    def __enter__(self) -> Load:
        if torch.cuda.is_available():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "agreement": agreement,
    "trials": trials,
    "accuracies": accuracies,
    "tests": tests,
    "steps": steps,
    "epochs": whole_epochs,
    "sweep": whole_sweep,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the parts in their order; print and write each at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--width", type=int)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--n-images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=3, help="of the digits, in units of four")
    parser.add_argument("--side-by-side", type=int, nargs="*", default=[2])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args(arguments)
    document: dict[str, Any] = {"environment": environment(resolve_device(options.device))}
    print(document["environment"])
    for name in options.parts:
        started = time.perf_counter()
        document[name] = PARTS[name](options)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        if name != "steps":
            print(document[name], flush=True)
        write_json(options.out, document)


if __name__ == "__main__":
    main()
