"""The front per forward image: our searches against plain sampling and baselines, by real training.

python -m benchmarks.search_efficiency --task digits --space full --out results.json

Every search begins as a sweep of its space does, see `search.scheduling.proposer.Proposer.first`:
with plain adversarial training by the base's settings. Plain trains every trial from scratch and
learns one point from it; the others may spend a fraction of its cost, in forward images. Baselines
do not search, and stop by themselves. Fronts are chosen on validation images and judged on test
images under the same attack, see `benchmarks.fronts`. Seeds vary training and sampling. Results are
added to those in `--out`, and what is there is not run again; the final fronts are saved beside it,
for `benchmarks.final_fronts`. The task `simulated` needs no training: many seeds take minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import multiprocessing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage

from benchmarks.baselines import BASELINES
from benchmarks.comparison import key_of, plot, table
from benchmarks.fronts import FoundFront, FrontTester
from benchmarks.simulated_loop import run_here
from benchmarks.simulator import WarmupsInMemory
from benchmarks.tasks import Task
from generalist_core.config import TrainConfig
from search.config import Growing, Population, SuccessiveHalving, SweepConfig
from search.files import read_json, write_json
from search.running.trial import Training, with_release_ratio
from search.scheduling.early_stopping import Rungs
from search.scheduling.proposers import build_proposer
from search.scheduling.searcher import Rules, Searcher
from search.study.ledger import Ledger
from search.study.records import Proposal
from search.study.results import Results
from search.study.samplers import N_STARTUP, build_samplers, fixing
from spaces import SPACES


@dataclass(frozen=True, kw_only=True)
class Method:
    """The parts of the search that are switched on, and parameters that it does not search."""

    sampler: str = "tpe"
    releases: bool = True
    shares: bool = True
    stops: SuccessiveHalving | None = field(default_factory=SuccessiveHalving)
    grows: Growing | None = None
    population: Population | None = None
    fixed: dict[str, Any] = field(default_factory=dict)


RESTS = "experts.robust.rests"
PLAIN = Method(releases=False, shares=False, stops=None)
LINEAGES = Method(stops=None, grows=Growing())
METHODS = {
    "plain": PLAIN,
    "random": dataclasses.replace(PLAIN, sampler="random"),
    "NSGA-II": dataclasses.replace(PLAIN, sampler="nsga2"),
    "plain, stopping": dataclasses.replace(PLAIN, stops=SuccessiveHalving()),
    "fixed lengths": Method(),
    "lineages": LINEAGES,
    "population": dataclasses.replace(LINEAGES, population=Population()),
    "lineages, random": dataclasses.replace(LINEAGES, sampler="random"),
    "lineages, no release curve": dataclasses.replace(LINEAGES, releases=False),
    "lineages, no sharing": dataclasses.replace(LINEAGES, shares=False),
    "lineages, one": dataclasses.replace(LINEAGES, grows=Growing(n_first=1)),
    "lineages, resting": dataclasses.replace(LINEAGES, fixed={RESTS: True}),
    "lineages, co-training": dataclasses.replace(LINEAGES, fixed={RESTS: False}),
}
"""The searches by name. Stopping is multi-objective successive halving (Schmucker et al. 2021)."""

GROWING = {"full": "lineages", "mixing": "branches"}
"""The space with lineages that stands in for another where a method `grows`."""


def as_trained(proposal: Proposal, method: Method) -> TrainConfig:
    """A proposal's configuration, without the parts that the method does not use."""
    config = with_release_ratio(proposal.config, proposal.mixing_ratio)
    evaluation = dataclasses.replace(config.evaluation, release_global=False)
    if not method.releases:
        ratios = (proposal.mixing_ratio,)
        evaluation = dataclasses.replace(evaluation, release_ratios=ratios, n_refinements=0)
    if not method.stops:
        evaluation = dataclasses.replace(evaluation, every_epochs=config.epochs)
    return dataclasses.replace(config, evaluation=evaluation)


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


def run(cell: Cell, out: Path | None) -> dict[str, Any]:
    """Search until the budget is spent; returns the front's values over cost, and saves it."""
    torch.set_num_threads(1)
    task = Task.of(cell.task, cell.root, cell.seed)
    front = FoundFront(task)
    result: dict[str, Any] = {}
    if cell.method in BASELINES:
        for cost, found in BASELINES[cell.method](task):
            front.add(cost, found)
        result["cost"] = front.history[-1]["cost"]
    else:
        results = search(cell, task, front)
        result["cost"] = results.cost()["forward_images"]
        result["trials"] = dataclasses.asdict(results.counts())
    if out is not None and all(found.weights is not None for found in front.candidates):
        path = front_file(out, cell.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        models = [(dict(found.validated), found.weights) for found in front.candidates]
        torch.save(models, path)
    return {**result, "history": front.history}


def search(cell: Cell, task: Task, front: FoundFront) -> Results:
    """Search by a method; its results, while `front` takes in what it finds."""
    method, base = METHODS[cell.method], task.config
    space = SPACES[GROWING[cell.space] if method.grows else cell.space]
    sampler_of = build_samplers(method.sampler, seed=cell.seed, n_startup=N_STARTUP)

    def fixed_sampler_of(suggestion: str) -> BaseSampler:
        return fixing(sampler_of(suggestion), method.fixed)

    ledger = Ledger(InMemoryStorage(), base.evaluation.objective_names, sampler_of=fixed_sampler_of)
    request = SweepConfig(
        base=base,
        growing=method.grows or Growing(),
        population=method.population,
        sampler=method.sampler,
        seed=cell.seed,
    )
    proposer = build_proposer(ledger, space, request, lambda: task.images)
    proposer.enqueue_first()
    tester = FrontTester(task, front)
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
    return ledger.results


def main() -> None:
    """Run the missing searches, plain first as it sets the budgets, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--space", default="full", choices=GROWING)
    known = [*METHODS, *BASELINES]
    parser.add_argument("--methods", nargs="+", default=known, choices=known)
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
            for key, result in pool.imap_unordered(partial(keyed, out=options.out), missing):
                results[key] = result
                print(key, result.get("trials"), result["history"][-1:], flush=True)
                if options.out is not None:
                    write_json(options.out, results)
    print("\n".join(table(results, options.task, options.space, known)))
    if options.out is not None:
        plot(results, options.out.with_suffix(".png"), options.methods)


def keyed(cell: Cell, out: Path | None) -> tuple[str, dict[str, Any]]:
    """The result of a search with its name, as searches end in any order."""
    return cell.key, run(cell, out)


def front_file(results: Path, key: str) -> Path:
    """Where the last front of a search is saved, beside its results."""
    return results.with_suffix("") / f"{key.replace('/', ' ')}.pt"


if __name__ == "__main__":
    main()
