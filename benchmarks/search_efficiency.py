"""How much front a forward image buys: ours against plain sampling, by real training on the digits.

python -m benchmarks.search_efficiency [--seeds 5] [--plain-trials 24] [--epochs 16] [--out FILE]

Every method gets the cost of `plain-trials` plain trials, in forward images. Plain trains every
trial from scratch and learns one point from it. Fronts are chosen on validation images and judged
on test images under the same attack, by hypervolume above (0, 0) and by the trade-off area: that
above the natural accuracy of robust-only training. Trials run one after another, by the parts that
a sweep runs on Ray.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.storages import InMemoryStorage

from generalist_core.config import DataConfig, Ratio, TrainConfig
from generalist_core.evaluation import OperatingPoint
from generalist_core.presets import short
from search.early_stopping import Halving, Rungs
from search.front import hypervolume, non_dominated
from search.ledger import Ledger, Proposal
from search.proposer import Branching, Proposer
from search.samplers import build_sampler
from search.trial import TrialRun, cached_dataset, with_release_ratio
from search.warmups import WarmupStore
from spaces import SPACES, paper_suggestion


@dataclass(frozen=True, kw_only=True)
class Method:
    """Which parts of the search are on."""

    sampler: str = "tpe"
    releases: bool = True
    shares: bool = True
    branches: bool = True
    stops: bool = True


PLAIN = Method(releases=False, shares=False, branches=False, stops=False)
OURS = Method()
METHODS = {
    "random": dataclasses.replace(PLAIN, sampler="random"),
    "plain": PLAIN,
    "plain, stopping": dataclasses.replace(PLAIN, stops=True),
    "ours": OURS,
    "no release curve": dataclasses.replace(OURS, releases=False),
    "no sharing": dataclasses.replace(OURS, shares=False),
    "no branches": dataclasses.replace(OURS, branches=False),
    "no stopping": dataclasses.replace(OURS, stops=False),
}


class Run:
    """One method with one seed: trains until its budget is spent, and judges its front on test."""

    def __init__(self, method: Method, seed: int, epochs: int, store: Path) -> None:
        self.method = method
        self.config: TrainConfig = short(data=DataConfig(n_validation=500), epochs=epochs)
        self.store = store
        n_points = 7 if method.releases else 1
        sampler = build_sampler(method.sampler, seed=seed, n_startup=10 * n_points)
        objectives = self.config.evaluation.objectives
        self.ledger = Ledger(InMemoryStorage(), objectives, sampler=sampler)
        branching = Branching() if method.branches else None
        self.proposer = Proposer(self.ledger, SPACES["full"], self.config, branching)
        params, ratio = paper_suggestion(SPACES["full"], self.config)
        self.ledger.enqueue(params, ratio, 2)
        first_rung = max(1, epochs // 4)
        self.rungs = Rungs(Halving(eta=3, first_rung=first_rung, growth=1.5))
        self.test: dict[tuple[str, Any], tuple[float, float]] = {}
        self.reference = self.robust_only()
        self.cost = 0
        self.history: list[dict[str, float]] = []

    def until(self, budget: float | None, n_trials: int) -> None:
        """Run trials until the budget is spent, or so many if there is none."""
        while self.cost < budget if budget is not None else len(self.history) < n_trials:
            self.step(self.proposer.propose())
            self.history.append({"cost": self.cost, **self.judged()})

    def step(self, proposal: Proposal) -> None:
        """Train one trial, or a part of it."""
        config = with_release_ratio(proposal.config, proposal.ratio)
        store = WarmupStore(self.store) if self.method.shares else None
        with tempfile.TemporaryDirectory() as folder:
            run = TrialRun(Path(folder), config, warmups=store)
            stopped = self.train(run, proposal)
            costs = {"seconds": run.seconds, "reused_forward_images": 0.0}
            if stopped:
                spent = run.trainer.forward_images
                self.ledger.tell_stopped(
                    proposal.trial, run.trainer.epoch, {**costs, "forward_images": spent}
                )
            else:
                ratios = config.evaluation.release_ratios
                chosen = ratios if self.method.releases else [proposal.ratio]
                points = run.trainer.release(chosen)
                spent = run.trainer.forward_images
                self.ledger.tell_released(
                    proposal.trial, points, {**costs, "forward_images": spent}
                )
                self.proposer.completed(proposal.trial)
                self.measure(run, proposal.trial, points)
        self.cost += spent

    def train(self, run: TrialRun, proposal: Proposal) -> bool:
        """Train to the end, or until early stopping ends it; says which."""
        config = proposal.config
        every = config.evaluation.every_epochs
        evaluated = [e for e in range(every, config.epochs, every) if e > config.sync.start_epoch]
        due = self.rungs.halving.reports(evaluated, config.epochs)
        while not run.is_done:
            metrics = run.advance()
            epoch = int(metrics["epoch"])
            if not self.method.stops or epoch not in due or "accuracy/global/robust" not in metrics:
                continue
            points = [
                [metrics[f"accuracy/{who}/{name}"] for name in self.ledger.objectives]
                for who in ("global", "natural", "robust")
            ]
            if self.rungs.report(proposal.trial, due[epoch], points).stop:
                return True
        return False

    def measure(self, run: TrialRun, trial: str, points: list[OperatingPoint]) -> None:
        """Remember the points on test images, which the search neither sees nor pays."""
        for point in points:
            self.test[trial, point.ratio] = self.measured(run, point.ratio)

    def measured(self, run: TrialRun, ratio: Ratio) -> tuple[float, float]:
        """A mixture's natural and robust accuracy on test images."""
        test = cached_dataset(self.config.data).test
        assert test is not None
        trainer = run.trainer
        found = trainer.evaluator.accuracies(trainer.mixture(ratio), test.to(trainer.device))
        return found["natural"], found["robust"]

    def judged(self) -> dict[str, float]:
        """The test values of the front that validation chose."""
        chosen = self.ledger.front().points
        values = np.array([self.test[p.trial, p.mixing_ratio] for p in chosen]).reshape(-1, 2)
        return {
            "hypervolume": hypervolume(values),
            "trade_off": hypervolume(values, self.reference),
            "n_front": int(non_dominated(values).sum()),
        }

    def robust_only(self) -> tuple[float, float]:
        """The natural test accuracy of the robust expert of the base, which never meets another."""
        alone = dataclasses.replace(self.config.sync, start_epoch=self.config.epochs - 1)
        with tempfile.TemporaryDirectory() as folder:
            run = TrialRun(Path(folder), dataclasses.replace(self.config, sync=alone))
            while run.trainer.epoch < alone.start_epoch:
                run.advance()
            return (self.measured(run, 1.0)[0], 0.0)


def compare(arguments: tuple[int, int, int]) -> dict[str, list[dict[str, float]]]:
    """All methods with one seed, at the cost of plain."""
    seed, plain_trials, epochs = arguments
    torch.set_num_threads(1)
    histories = {}
    budget: float | None = None
    for name in ("plain", *(name for name in METHODS if name != "plain")):
        with tempfile.TemporaryDirectory() as store:
            run = Run(METHODS[name], seed, epochs, Path(store))
            run.until(budget, plain_trials)
        budget = budget or run.cost
        histories[name] = run.history
        print(
            f"seed {seed}  {name:<17} {len(run.history):>3} trials  {run.history[-1]}", flush=True
        )
    return histories


def share_of_cost(
    history: list[dict[str, float]], plain: list[dict[str, float]], key: str
) -> float:
    """The share of plain's cost at which plain's final value is reached; infinity if never."""
    for row in history:
        if row[key] >= plain[-1][key]:
            return row["cost"] / plain[-1]["cost"]
    return float("inf")


def table(results: list[Mapping[str, list[dict[str, float]]]]) -> list[str]:
    """Mean and standard deviation over seeds of the final values, and median shares of cost."""
    lines = ["method             hypervolume     trade-off       cost to plain's: hv, trade-off"]
    for name in METHODS:
        cells = [f"{name:<17}"]
        for key in ("hypervolume", "trade_off"):
            final = [result[name][-1][key] for result in results]
            spread = statistics.stdev(final) if len(final) > 1 else 0.0
            cells.append(f"{statistics.fmean(final):.4f} ± {spread:.4f}")
        for key in ("hypervolume", "trade_off"):
            shares = [share_of_cost(result[name], result["plain"], key) for result in results]
            cells.append(f"{statistics.median(shares):.2f}")
        lines.append("  ".join(cells))
    return lines


def main() -> None:
    """Run the seeds side by side and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--plain-trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jobs = [(seed, options.plain_trials, options.epochs) for seed in range(options.seeds)]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        results = pool.map(compare, jobs, chunksize=1)
    print("\n".join(table(results)))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        document = {"seeds": options.seeds, "epochs": options.epochs, "histories": results}
        options.out.write_text(json.dumps(document))


if __name__ == "__main__":
    main()
