"""The front per forward image: our search against plain sampling, by real training.

python -m benchmarks.search_efficiency --task digits --out docs/results/search_efficiency.json

Every method begins as a sweep does, see `search.scheduling.proposer.Proposer.first`, and may spend
the cost of `plain-trials` plain trials, in forward images. Plain trains every trial from scratch
and learns one point from it. Fronts are chosen on validation images and judged on test images under
the same attack, by the hypervolume above (0, 0) and by the trade-off area, which is the hypervolume
above the natural accuracy of robust-only training. Results are added to those in `--out`, and
searches that are there are not run again. The task `simulated` needs no training: many seeds take
minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.storages import InMemoryStorage

from benchmarks.comparison import MEASURES, key_of, plot, table
from benchmarks.simulated_loop import run_here
from benchmarks.simulator import SimulatedTrainer, WarmupsInMemory, World
from generalist_core.config import DataConfig, Ratio, TrainConfig
from generalist_core.config.presets import short
from generalist_core.data.splits import Dataset, Split, as_floats
from generalist_core.training.abstract_trainer import AbstractTrainer
from generalist_core.training.evaluator import Evaluator, OperatingPoint
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.training.warmups import train_warmup, warming
from search.config import Growing, SuccessiveHalving
from search.files import read_json, write_json
from search.front.front import hypervolume
from search.running.trial import Training, cached_dataset, with_release_ratio
from search.scheduling.callbacks import Callback
from search.scheduling.early_stopping import Rungs
from search.scheduling.lineages import build_proposer
from search.scheduling.searcher import Rules, Searcher
from search.study.ledger import Ledger
from search.study.records import Proposal
from search.study.results import Results
from search.study.samplers import N_STARTUP, build_samplers
from spaces import SPACES


@dataclass(frozen=True, kw_only=True)
class Method:
    """The parts of the search that are switched on."""

    sampler: str = "tpe"
    releases: bool = True
    shares: bool = True
    stops: SuccessiveHalving | None = field(default_factory=SuccessiveHalving)
    grows: bool = False


PLAIN = Method(releases=False, shares=False, stops=None)
OURS = Method()
METHODS = {
    "plain": PLAIN,
    "random": dataclasses.replace(PLAIN, sampler="random"),
    "plain, stopping": dataclasses.replace(PLAIN, stops=SuccessiveHalving()),
    "ours": OURS,
    "no release curve": dataclasses.replace(OURS, releases=False),
    "no sharing": dataclasses.replace(OURS, shares=False),
    "no stopping": dataclasses.replace(OURS, stops=None),
    "lineages": Method(stops=None, grows=True),
}

GROWING = {"full": "lineages", "mixing": "branches"}
"""The space with lineages that stands in for another where a method `grows`."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The base of all trials and its images; a simulation has no images."""

    config: TrainConfig
    data: Dataset | None = None

    @staticmethod
    def of(name: str, root: str) -> Task:
        """The digits, Fashion-MNIST pooled to 14x14 pixels, or a simulation."""
        if name == "simulated":
            return Task(config=short())
        if name == "digits":
            config = short(data=DataConfig(n_validation=500))
            return Task(config=config, data=cached_dataset(config.data))
        data = DataConfig(name=name, root=root, n_train=4000, n_validation=1000)
        config = short(data=data, epochs=8, epsilon=0.1)
        whole = cached_dataset(data)
        assert whole.test is not None
        splits = {part: pooled(getattr(whole, part)) for part in ("train", "validation", "test")}
        splits["test"] = splits["test"].take(torch.arange(4000))
        return Task(config=config, data=Dataset(name=name, **splits))

    @property
    def images(self) -> Dataset:
        """The images; those of a simulation are white."""
        return self.data or World().images()

    def trainer(self, config: TrainConfig) -> AbstractTrainer:
        """A trainer of this task."""
        if self.data is None:
            return SimulatedTrainer(config, World())
        return GeneralistTrainer(config, self.data)

    def tested(self, trainer: AbstractTrainer, ratio: Ratio) -> list[float]:
        """A mixture's natural and robust accuracy on test images, which no search uses."""
        if isinstance(trainer, SimulatedTrainer):
            return list(trainer.true_accuracies(ratio))
        assert isinstance(trainer, GeneralistTrainer)
        assert self.data is not None
        assert self.data.test is not None
        config, model = trainer.config, trainer.evaluator.model
        evaluator = Evaluator(
            model, self.data.test, config.evaluation, seed=config.seed, dtype=trainer.dtype
        )
        return list(evaluator.judge(trainer.mixture(ratio)).values())

    def robust_only(self) -> float:
        """The natural test accuracy of the base's robust expert, trained alone."""
        alone = dataclasses.replace(self.config.sync, start_epoch=self.config.epochs - 1)
        trainer = self.trainer(dataclasses.replace(self.config, sync=alone))
        if isinstance(trainer, SimulatedTrainer):
            return trainer.world.alone(self.config.experts[1], self.config.epochs)[0]
        while "robust" in warming(trainer):
            train_warmup(trainer, "robust")
        return self.tested(trainer, 1.0)[0]


def as_trained(proposal: Proposal, method: Method) -> TrainConfig:
    """A proposal's configuration, without the parts that the method does not use."""
    config = with_release_ratio(proposal.config, proposal.mixing_ratio)
    evaluation = config.evaluation
    if not method.releases:
        ratios = (proposal.mixing_ratio,)
        evaluation = dataclasses.replace(evaluation, release_ratios=ratios, n_refinements=0)
    if not method.stops:
        evaluation = dataclasses.replace(evaluation, every_epochs=config.epochs)
    return dataclasses.replace(config, evaluation=evaluation)


class FrontTester(Callback):
    """Tests the front after each trial."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.reference = task.robust_only()
        self.trainers: dict[str, AbstractTrainer] = {}
        self.tested: dict[tuple[str, Ratio], list[float]] = {}
        self.history: list[dict[str, float]] = []

    def on_completed(self, _: str, __: Sequence[OperatingPoint], results: Results) -> None:
        """Judge the front, which was chosen on validation images, on test images."""
        front = [(point.trial, point.mixing_ratio) for point in results.front().points]
        for trial, ratio in front:
            if (trial, ratio) not in self.tested:
                self.tested[trial, ratio] = self.task.tested(self.trainers[trial], ratio)
        self.trainers.clear()  # a trial that is not on the front now never will be
        values = np.array([self.tested[key] for key in front])
        measures = [hypervolume(values), hypervolume(values, (self.reference, 0.0))]
        self.history.append(
            {
                "cost": results.cost()["forward_images"],
                **dict(zip(MEASURES, measures, strict=True)),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One search of the benchmark; plain has a number of trials, the others a budget."""

    task: str
    space: str
    method: str
    seed: int
    root: str
    n_trials: float = math.inf
    budget: float = math.inf

    @property
    def key(self) -> str:
        """The name of the search in the results."""
        return key_of(self.task, self.space, self.method, self.seed)


def run(cell: Cell) -> dict[str, Any]:
    """Search until the budget is spent; returns the front's values over cost."""
    torch.set_num_threads(1)
    task, method = Task.of(cell.task, cell.root), METHODS[cell.method]
    space = SPACES[GROWING[cell.space] if method.grows else cell.space]
    base = task.config
    sampler = build_samplers(method.sampler, seed=cell.seed, n_startup=N_STARTUP)
    ledger = Ledger(InMemoryStorage(), base.evaluation.objectives, sampler_of=sampler)
    proposer = build_proposer(ledger, space, base, Growing(), lambda: task.images)
    proposer.enqueue_first()
    tester = FrontTester(task)
    searcher = Searcher(
        proposer,
        n_trials=cell.n_trials,
        callback=tester,
        rules=Rules(rungs=Rungs(method.stops) if method.stops else None, budget=cell.budget),
    )
    warmups = WarmupsInMemory() if method.shares else None

    def begin(proposal: Proposal) -> Training:
        trainer = task.trainer(as_trained(proposal, method))
        tester.trainers[proposal.trial] = trainer
        return Training(trainer, warmups)

    run_here(searcher, begin)
    counts = dataclasses.asdict(ledger.results.counts())
    return {
        "cost": ledger.results.cost()["forward_images"],
        "trials": counts,
        "history": tester.history,
    }


def pooled(split: Split) -> Split:
    """The images at half the resolution, by averages of 2x2 pixels."""
    images = as_floats(split.images, torch.float32)
    return Split(images=torch.nn.functional.avg_pool2d(images, 2), labels=split.labels)


def main() -> None:
    """Run the missing searches, plain first as it sets the budgets, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--space", default="full", choices=SPACES)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--plain-trials", type=int, default=24)
    parser.add_argument("--fraction", type=float, default=1.0, help="of plain's cost, for others")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    stored = options.out is not None and options.out.is_file()
    results: dict[str, Any] = read_json(options.out) if stored else {}

    def limits(method: str, seed: int) -> dict[str, float]:
        if method == "plain":
            return {"n_trials": options.plain_trials}
        plain = results[key_of(options.task, options.space, "plain", seed)]
        return {"budget": options.fraction * plain["cost"]}

    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for methods in (["plain"], [name for name in options.methods if name != "plain"]):
            cells = [
                Cell(
                    task=options.task,
                    space=options.space,
                    method=method,
                    seed=seed,
                    root=options.data_root,
                    **limits(method, seed),
                )
                for seed in range(options.seeds)
                for method in methods
            ]
            missing = [cell for cell in cells if cell.key not in results]
            for key, result in pool.imap_unordered(keyed, missing):
                results[key] = result
                print(key, result["trials"], result["history"][-1:], flush=True)
                if options.out is not None:
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    write_json(options.out, results)
    print("\n".join(table(results, options.task, options.space, list(METHODS))))
    if options.out is not None:
        plot(results, options.out.with_suffix(".png"), options.methods)


def keyed(cell: Cell) -> tuple[str, dict[str, Any]]:
    """The result of a search with its name, as searches end in any order."""
    return cell.key, run(cell)


if __name__ == "__main__":
    main()
