"""Measure a front again, once, on test images with the whole attack suite.

A front is chosen on validation images under a cheap attack, so its accuracies are too high for two
reasons: the choice among noisy numbers, and the weakness of the attack. Both are shown: the
accuracy of each point on test images after the cheaper attacks, and after all of them.

    verify/<point>.<objective>.<suite>.pt   an evaluation in progress, continued by the next call
    verified.json                           the result
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.table import Table
from torch import Tensor

from generalist_core.config import NFGSM, SeveralAttacks, TrainConfig
from generalist_core.config.codec import from_dict, to_dict, to_json
from generalist_core.config.evaluation import NATURAL
from generalist_core.config.mixing import Released
from generalist_core.data.splits import Dataset
from generalist_core.device import resolve_device
from generalist_core.fingerprints import content_digest
from generalist_core.models.build import ModelFactory
from generalist_core.training.averaging import load_weights
from generalist_core.training.evaluator import accuracies
from generalist_core.validation import InvalidConfigError
from search.api.evaluate import evaluate_resumably, follow, suite_document
from search.config import CustomParts, Limits, Resources, VerifyConfig
from search.errors import WorkerError
from search.files import write_sealed_json
from search.folders import SweepFolder
from search.front.front import Front, hypervolume, non_dominated
from search.front.points import FrontPoint, accuracy_interval, interval_text, values_of
from search.running.mixtures import empty_model, point_state, require_averages
from search.running.trial import cached_dataset
from search.study.failures import Failure
from search.study.folder import Sweep, require_custom_parts


@dataclass(frozen=True, kw_only=True)
class VerifyJob:
    """One point to verify, and the files of its sweep."""

    files: SweepFolder
    name: str
    trial: str
    mixing_ratio: Released
    config: TrainConfig
    request: VerifyConfig


def verify(
    sweep: Sweep,
    request: VerifyConfig,
    *,
    resources: Resources | None = None,
    data: Dataset | None = None,
    model: ModelFactory | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Verify every point of the front and write `verified.json`; returns its document.

    An earlier `verified.json` is replaced, and the console says so.

    With `resources` the points are spread over Ray's workers; otherwise they are verified in this
    process, one by one, under a progress bar. The next call continues an interrupted one.

    Raises:
        InvalidConfigError: no front, no test images, or an unknown attack.
        SweepFolderError: the averages of a point are missing or damaged.
        EvaluationError: a model or an attack breaks a law of the evaluation.
    """
    front = sweep.front
    if not front.points:
        raise InvalidConfigError("A sweep must have a front to verify, but no trial has completed.")
    images = data or cached_dataset(sweep.config.base.data)
    if images.test is None:
        raise InvalidConfigError(
            "The data must have test images, but have none. Give data with a test split."
        )
    files = SweepFolder(sweep.folder.absolute())
    require_custom_parts(files.root, data, model)
    for trial in dict.fromkeys(point.trial for point in front.points):
        require_averages(files, trial)
    files.evaluations.mkdir(exist_ok=True)
    jobs = [_job(files, point, request) for point in front.points]
    started = time.perf_counter()
    console = console or Console(stderr=True)
    if resources is None:
        results = _verify_here(jobs, data, model, console)
    else:
        custom = CustomParts(data=data, model=model)
        limits = sweep.config.limits
        results = dict(_verify_on_ray(jobs, custom, resources, limits, console))
    document = verified_document(front, request, results)
    document["seconds"] = time.perf_counter() - started
    if files.verified.is_file():
        console.print(f"the earlier {files.verified} is replaced", soft_wrap=True)
    write_sealed_json(files.verified, document)
    return document


class PointVerifier:
    """Verify one point: build its mixture, and run the suite in the ball of every attack."""

    def __init__(self, job: VerifyJob, data: Dataset | None, model: ModelFactory | None) -> None:
        self.job = job
        device = resolve_device(job.config.device)
        data = data or cached_dataset(job.config.data)
        assert data.test is not None
        self.split = data.test.to(device)
        self.model = empty_model(job.config, data, model)
        load_weights(self.model, point_state(job.files, job.trial, job.mixing_ratio))
        self.model.to(device)

    def run(self, bar: ProgressBar | None = None) -> dict[str, Any]:
        """The accuracies on `test` images by objective, and the documents of the `attacks`.

        An image counts for the union if it withstood the suites in all balls, each in its norm.
        """
        documents: dict[str, Any] = {}
        verdicts: dict[str, Tensor] = {}
        evaluation = self.job.config.evaluation
        for named in evaluation.attacks:
            assert not isinstance(named.attack, NFGSM | SeveralAttacks)
            suite = self.job.request.suite(named.attack)
            suite = replace(suite, batch_size=suite.size_on(self.split.images.device.type))
            key = content_digest(to_json(suite))[:8]
            place = self.job.files.evaluations / f"{self.job.name}.{named.name}.{key}.pt"
            show = follow(bar, f"{self.job.name} {named.name}") if bar else None
            result = evaluate_resumably(
                self.model, self.split, suite, place=place, on_progress=show
            )
            documents[named.name] = suite_document(result)
            verdicts |= {NATURAL: result.verdicts[NATURAL], named.name: result.worst_case}
        return {"test": accuracies(verdicts, evaluation.objective_names), "attacks": documents}


def run_job(
    job: VerifyJob, *, threads: int, data: Dataset | None, model: ModelFactory | None
) -> dict[str, Any]:
    """Verify one point in a worker."""
    torch.set_num_threads(threads)
    return PointVerifier(job, data, model).run()


def verified_document(
    front: Front, request: VerifyConfig, results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Validation beside test: points, gaps, hypervolumes, and the points that left the front."""
    rows = [_row(point, front.objectives, results[point.name]) for point in front.points]
    test = np.array([[row["test"][name] for name in front.objectives] for row in rows])
    validation = values_of(front.points, front.objectives)
    for row, kept in zip(rows, non_dominated(test), strict=True):
        row["on_test_front"] = bool(kept)
    return {
        "objectives": list(front.objectives),
        "split": "test",
        "request": to_dict(request),
        "points": rows,
        "reference_point": list(front.reference),
        "hypervolume": {
            "validation": hypervolume(validation, front.reference),
            "test": hypervolume(test, front.reference),
        },
        "lost_their_place": [row["name"] for row in rows if not row["on_test_front"]],
    }


def verified_table(document: Mapping[str, Any]) -> Table:
    """The verified front for the console, in %: validation -> test, with the interval on test.

    A robust accuracy on test images after the cheapest attack stands between the two.
    """
    table = Table(title="Front on test images", title_justify="left")
    table.add_column("point")
    for name in document["objectives"]:
        table.add_column(f"{name} %", justify="right")
    table.add_column("indicators")
    table.add_column("kept")
    for row in document["points"]:
        cells = []
        for name in document["objectives"]:
            before = [row["validation"][name], *_cheapest(row, name)]
            steps = [f"{100 * accuracy:.1f}" for accuracy in before]
            steps.append(interval_text(row["test"][name], row["test_interval"][name]))
            cells.append(" -> ".join(steps))
        suites = row["attacks"].values()
        names = {indicator["name"] for suite in suites for indicator in suite["indicators"]}
        kept = "yes" if row["on_test_front"] else "no"
        table.add_row(row["name"], *cells, ", ".join(sorted(names)) or "none", kept)
    return table


def verified_notes(document: Mapping[str, Any]) -> list[str]:
    """How the table is read, and what each indicator found."""
    suites = [
        (f"{row['name']} {objective}", suite)
        for row in document["points"]
        for objective, suite in row["attacks"].items()
    ]
    after = list(suites[0][1]["accuracy_after"])[1:] if suites else []
    robust = f" Robust ones on test: after {after[0]} -> after all attacks." if after[1:] else ""
    return [
        f"Accuracies: on validation -> on test, with the 95 % interval.{robust} "
        "kept: whether the point stays on the front",
        *(
            f"indicator: {measured}: {indicator['name']}: {indicator['message']}"
            for measured, suite in suites
            for indicator in suite["indicators"]
        ),
    ]


def _cheapest(row: Mapping[str, Any], objective: str) -> list[float]:
    """The test accuracy after the first of several attacks."""
    if objective not in row["attacks"]:
        return []
    _, *after = row["attacks"][objective]["accuracy_after"].values()
    return after[:1] if len(after) > 1 else []


def _row(point: FrontPoint, objectives: Sequence[str], result: Mapping[str, Any]) -> dict[str, Any]:
    test, suites = result["test"], result["attacks"]
    n_images = next(iter(suites.values()))["n_images"]
    return {
        "name": point.name,
        "trial": point.trial,
        "mixing_ratio": point.mixing_ratio,
        "validation": dict(point.accuracies),
        "validation_interval": {name: point.interval(name) for name in objectives},
        "n_validation_images": point.n_images,
        "test": test,
        "test_interval": {name: accuracy_interval(test[name], n_images) for name in objectives},
        "n_test_images": n_images,
        "gap": {name: point.accuracies[name] - test[name] for name in objectives},
        "attacks": suites,
    }


def _job(files: SweepFolder, point: FrontPoint, request: VerifyConfig) -> VerifyJob:
    return VerifyJob(
        files=files,
        name=point.name,
        trial=point.trial,
        mixing_ratio=point.mixing_ratio,
        config=from_dict(point.config, TrainConfig),
        request=request,
    )


def _verify_here(
    jobs: Sequence[VerifyJob], data: Dataset | None, model: ModelFactory | None, console: Console
) -> dict[str, dict[str, Any]]:
    with ProgressBar(console=console, transient=True) as bar:
        whole = bar.add_task("front", total=len(jobs))
        results = {}
        for job in jobs:
            results[job.name] = PointVerifier(job, data, model).run(bar)
            bar.advance(whole)
            _say(console, job.name, results[job.name])
    return results


def _verify_on_ray(
    jobs: Sequence[VerifyJob],
    custom: CustomParts,
    resources: Resources,
    limits: Limits,
    console: Console,
) -> Iterator[tuple[str, dict[str, Any]]]:
    from search.running.ray_cluster import map_on_ray, running_ray

    with running_ray(resources):
        shared = {"threads": resources.threads, "data": custom.data, "model": custom.model}
        for job, outcome in map_on_ray(run_job, jobs, resources=resources, limits=limits, **shared):
            if isinstance(outcome, Failure):
                raise WorkerError(f"Point {job.name} could not be verified: {outcome.reason}")
            _say(console, job.name, outcome)
            yield job.name, outcome


def _say(console: Console, name: str, result: Mapping[str, Any]) -> None:
    """A line for a point that is verified."""
    measured = "  ".join(f"{n} {100 * accuracy:.1f} %" for n, accuracy in result["test"].items())
    console.print(f"point {name}  {measured}", soft_wrap=True, highlight=False)
