"""What a GPU is to show, in one command of a few minutes: agreement, then speed.

python -m benchmarks.gpu [--out docs/results/gpu.json]
python -m benchmarks.gpu --device cpu --model convnet --width 1 --n-images 64   (a trial of it)

`agreement`: recorded steps against steps that run as they are, by the weights after 20 of them in
float32, in the first run of a trainer and in the next. `steps`: `benchmarks.train_step`. `epochs`:
`benchmarks.epochs`, alone. `sweep`: six short trials without Ray, and how busy nvidia-smi sees the
GPU; it needs optuna. `judging`: three models of the digits on 1,000 images, and the time of the
large model, in each precision, recorded or not. `trials`: how long trials of a process take to
begin: the first, the second, which has a trainer of its own, and the tenth, which takes over that
of the ninth. `tests`: those that need a GPU, by pytest. `accuracies`: a short training of the
digits in float32, and in bfloat16, compiled and recorded. `joint`: co-training epochs of several
processes on one GPU. `wide`: the fastest step of WRN-32-10. `joint-mps`, which must be asked for:
as `joint`, under CUDA's multi-process service.

What is done is printed and written at once, so that a run that is cut keeps it. After `--seconds`
no further part begins; those that are left out are named. At the end figures stand beside targets.
"""

from __future__ import annotations

import argparse
import os
import statistics
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
from generalist_core.config import DataConfig, ModelConfig, TrainConfig
from generalist_core.config.evaluation import AttackPrecision
from generalist_core.config.presets import short
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.device import resolve_device
from generalist_core.recording.steps import distance
from generalist_core.training.averaging import Weights
from generalist_core.training.spare import SpareTrainer
from generalist_core.training.trainer import GeneralistTrainer
from search.files import write_json
from search.folders import SweepFolder, TrialFolder
from search.running.trial import read_metrics

FASTEST = "bfloat16, compiled, graph"

N_TRIALS = 10

JUDGED_IN: tuple[AttackPrecision, ...] = ("float32", "tfloat32", "bfloat16")

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
    """The distance of the weights after recorded steps, over how far the steps took them.

    The next run begins in the trainer of the first one, and replays what that recorded.
    """
    data = noise(N_STEPS * options.batch)
    run = replace(
        train_step.RUN,
        model=model_of(options),
        device=options.device,
        batch_size=options.batch,
        epochs=2,
    )
    spare, found = SpareTrainer(), {}
    for seed, name in enumerate(("first", "next")):
        plain = GeneralistTrainer(replace(run, seed=seed), data)
        asked = replace(run, seed=seed, cuda_graph=True)
        taken = spare.take(asked)
        recorded = taken or GeneralistTrainer(asked, data)
        begun = [tensor.clone() for tensor in all_weights(plain)]
        for trainer in (plain, recorded):
            trainer.train_epoch()
        off, way = (distance(all_weights(plain), w) for w in (all_weights(recorded), begun))
        found[name] = {
            "recorded": recorded.replays,
            "taken_over": taken is not None,
            "relative_distance": off / way,
        }
        spare.keep(recorded)
    return found


def all_weights(trainer: GeneralistTrainer) -> Weights:
    """The weights of all experts, and of the global learner."""
    experts = [tensor for expert in trainer.experts for tensor in expert.weights]
    return [*experts, *trainer.global_learner]


def trials(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to have a trainer, and of its first and second epoch, of trials in one process.

    All compile and record the same; what they share need not be made again.
    """
    data, spare, rows = noise(N_STEPS * options.batch), SpareTrainer(), []
    run = replace(train_step.RUN, model=model_of(options), batch_size=options.batch, epochs=3)
    run = replace(run, device=options.device, **fast(options))
    for seed in range(N_TRIALS):
        times = [time.perf_counter()]
        config = replace(run, seed=seed)
        trainer = spare.take(config) or GeneralistTrainer(config, data)
        times.append(time.perf_counter())
        for _ in range(2):
            trainer.train_epoch()
            times.append(time.perf_counter())
        seconds = [after - before for before, after in pairwise(times)]
        rows.append(dict(zip(("build", "first_epoch", "second_epoch"), seconds, strict=True)))
        if seed > 0:  # the second one is to show a trainer of its own
            spare.keep(trainer)
    return {"first": rows[0], "second": rows[1], "last": rows[-1]}


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


def judging(options: argparse.Namespace) -> dict[str, Any]:
    """Accuracies of three mixtures, and seconds of the large model, by how attacks compute."""
    base = short(epochs=options.epochs * 4, data=DataConfig(name="digits", n_validation=1000))
    exact = replace(base, device=options.device, **EXACT)
    trained = GeneralistTrainer(exact, load_dataset(base.data))
    while not trained.is_done:
        trained.train_epoch()
    mixtures = [trained.mixture(ratio) for ratio in (0.0, 0.5, 1.0)]
    large = replace(exact, model=model_of(options), channels_last=True)
    data, found = noise(10_000), {}
    for precision in JUDGED_IN:
        for records in (False, True):
            evaluation = replace(base.evaluation, precision=precision)
            fields = {"evaluation": evaluation, "cuda_graph": records}
            digits = GeneralistTrainer(replace(exact, **fields), load_dataset(base.data)).evaluator
            rows = [digits.judge(mixture).accuracies for mixture in mixtures]
            timed = GeneralistTrainer(replace(large, **fields), data)
            weights, times = timed.experts[0].weights, []
            for _ in range(5):  # the last batch is another form, recorded in the fourth
                started = time.perf_counter()
                timed.evaluator.judge(weights)
                times.append(time.perf_counter() - started)
            name = f"{precision}{', recorded' * records}"
            found[name] = {"accuracies": rows, "seconds": times[-1]}
    return found


def steps(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rates of single steps, with and without a recording."""
    device, rows = resolve_device(options.device), []
    on_gpu = device.type != "cpu"
    wanted = [v for v in train_step.VARIANTS if v.startswith("bfloat16") or v == "tfloat32"]
    for batch in (options.batch, 4 * options.batch) if on_gpu else (options.batch,):
        variants = wanted if on_gpu else ["bfloat16"]
        rows.append(measured(model_of(options), batch, device, variants))
    return rows


def wide(options: argparse.Namespace) -> dict[str, Any] | None:
    """The fastest step of WRN-32-10; a CPU takes minutes for one."""
    device = resolve_device(options.device)
    if device.type == "cpu":
        return None
    return measured(ModelConfig(name="wrn-32-10"), 128, device, [FASTEST])


def measured(
    model: ModelConfig, batch: int, device: torch.device, variants: Sequence[str]
) -> dict[str, Any]:
    """Rates of steps of one model, which are printed too."""
    row = train_step.measure(model, (3, 32, 32), batch, device, variants=variants, repeats=3)
    print(train_step.table(row), flush=True)
    return row


def tests(options: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001
    """Whether the tests that need a GPU pass; without one they are skipped."""
    folder = Path(__file__).parents[1] / "tests/generalist_core/recording"
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-k", "gpu", str(folder)]
    run = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    last_lines = (run.stdout + run.stderr).splitlines()[-10:]
    return {"passed": run.returncode == 0, "last_lines": last_lines}


def setting_of(options: argparse.Namespace) -> epochs.Setting:
    """A training of CIFAR-10's size."""
    return epochs.Setting(
        model=options.model,
        width=options.width,
        n_images=options.n_images,
        batch=options.batch,
        epochs=1,
        device=options.device,
        **fast(options),
        threads=torch.get_num_threads(),
    )


def whole_epochs(options: argparse.Namespace) -> dict[str, Any]:
    """Epochs of the trainer, and what follows for 120 of them."""
    one = epochs.alone(setting_of(options))
    print(epochs.report(one, {}), flush=True)
    return one


def joint(options: argparse.Namespace) -> dict[int, float]:
    """Images per second of co-training in several processes together."""
    setting = replace(setting_of(options), n_images=options.n_images // 5)
    return {n: epochs.side_by_side(setting, n) for n in (1, *options.side_by_side)}


def joint_under_mps(options: argparse.Namespace) -> dict[int, float]:
    """The same with CUDA's multi-process service, which lets their kernels run at the same time."""
    control, places = "nvidia-cuda-mps-control", ("PIPE", "LOG")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {f"CUDA_MPS_{place}_DIRECTORY": folder for place in places}
        subprocess.run([control, "-d"], check=True)  # noqa: S603
        try:
            return joint(options)
        finally:
            subprocess.run([control], check=True, input="quit", text=True)  # noqa: S603
            for place in places:
                del os.environ[f"CUDA_MPS_{place}_DIRECTORY"]


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
        first = TrialFolder(min(SweepFolder(out).trials.iterdir()))
        compiled = first.config.stat().st_mtime + read_metrics(first.root)[0]["seconds"]
        busy = [percent for at, percent in load.samples if at > compiled]
        return {
            "seconds": seconds,
            "training_seconds": finished.results.cost()["seconds"],
            "mib": n_bytes / 2**20,
            "busy": load.samples,
            "busy_after_first_epoch": statistics.mean(busy) if busy else None,
        }


class Load:
    """The time, and the utilisation of the GPU in percent, once a second; nothing without a GPU."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def _sample(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._ended.wait(1):
            seen = subprocess.run(query, check=True, capture_output=True, text=True).stdout  # noqa: S603
            self.samples.append((time.time(), float(seen.split()[0])))

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
    "steps": steps,
    "epochs": whole_epochs,
    "sweep": whole_sweep,
    "judging": judging,
    "trials": trials,
    "tests": tests,
    "accuracies": accuracies,
    "joint": joint,
    "wide": wide,
    "joint-mps": joint_under_mps,
}
BY_DEFAULT = [name for name in PARTS if name != "joint-mps"]


def spread(judged: dict[str, Any]) -> float:
    """The largest difference of an accuracy from that in float32."""
    rows = [judgement["accuracies"] for judgement in judged.values()]
    return max(
        abs(accuracy - exact[name])
        for row in rows
        for found, exact in zip(row, rows[0], strict=True)
        for name, accuracy in found.items()
    )


def targets(found: dict[str, Any]) -> list[tuple[str, float, str, float]]:
    """What was measured, the figure, whether it is to be at most or at least the last one."""
    rows = []
    if "agreement" in found:
        off = max(run["relative_distance"] for run in found["agreement"].values())
        rows.append(("relative distance after 20 recorded steps", off, "at most", 0.1))
    if "judging" in found:
        rows.append(("accuracies by precision", spread(found["judging"]), "at most", 0.01))
    rates = {} if "steps" not in found else found["steps"][0]["images_per_second"]
    if FASTEST in rates:
        rows.append(("images/s of a co-training step", rates[FASTEST], "at least", 7000))
        rows.append(("times the textbook", rates[FASTEST] / rates["textbook"], "at least", 9))
    if "epochs" in found:
        minutes = found["epochs"]["minutes_of_120_epochs"]
        rows.append(("minutes of 120 epochs", minutes, "at most", 14))
        if FASTEST in rates:
            share = found["epochs"]["images_per_second"] / rates[FASTEST]
            rows.append(("an epoch's rate over the step's", share, "at least", 0.9))
    if "sweep" in found and (busy := found["sweep"]["busy_after_first_epoch"]) is not None:
        rows.append(("% of the sweep's time that the GPU is busy", busy, "at least", 70))
    return rows


def against_targets(found: dict[str, Any]) -> str:
    """A line for each target whose part was measured."""
    lines = []
    for name, value, bound, target in targets(found):
        met = value <= target if bound == "at most" else value >= target
        lines.append(f"{'met' if met else 'MISSED':<7} {name}: {value:.4g}, {bound} {target:g}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the parts in their order; print and write each at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=BY_DEFAULT, choices=PARTS)
    parser.add_argument("--seconds", type=float, default=300.0, help="begin no part after these")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--width", type=int)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--n-images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=3, help="of the digits, in units of four")
    parser.add_argument("--side-by-side", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args(arguments)
    document: dict[str, Any] = {"environment": environment(resolve_device(options.device))}
    print(document["environment"])
    begun = time.perf_counter()
    for name in options.parts:
        started = time.perf_counter()
        if started - begun > options.seconds:
            print(f"{name}: left out, as {options.seconds:g} s have passed")
            continue
        document[name] = PARTS[name](options)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        if name not in ("steps", "wide"):
            print(document[name], flush=True)
        write_json(options.out, document)
    print(against_targets(document))


if __name__ == "__main__":
    main()
