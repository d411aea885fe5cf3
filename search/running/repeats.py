"""The front trained again with other seeds, which shows how much of it was luck.

Each configuration on the front is trained `repeats` more times, with other initial weights, data
order and noise, and releases what it has on the front. The first training, which
was chosen for its result, is not part of the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict
from generalist_core.config.mixing import GLOBAL, as_released
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory
from generalist_core.randomness import derive_seed
from search.config import Limits, Resources
from search.files import read_if_intact, read_sealed_json, write_sealed_json
from search.folders import TrialFolder
from search.running.local import map_locally
from search.running.session import folder_in_place
from search.running.trial import TrialRun
from search.study.failures import Failure
from search.study.folder import Sweep
from search.wording import printable


@dataclass(frozen=True, kw_only=True)
class RepeatJob:
    """One training to repeat: the trial, the number of the repeat, and where its files go."""

    trial: str
    repeat: int
    folder: Path
    config: TrainConfig


def repeat_front(sweep: Sweep, console: Console) -> None:
    """Train the front's configurations again, and write `repeats.json`."""
    jobs = [job for repeat in range(1, sweep.config.repeats + 1) for job in _jobs(sweep, repeat)]
    resources, custom, rows = sweep.config.resources, sweep.custom, []
    on_front = {(point.trial, point.mixing_ratio) for point in sweep.front.points}
    map_jobs = map_locally if resources.local else _map_on(resources, sweep.config.limits)
    for job, outcome in map_jobs(
        run_repeat, jobs, threads=resources.threads, data=custom.data, model=custom.model
    ):
        if isinstance(outcome, Failure):
            why = printable(outcome.reason)
            text = f"repeat {job.repeat} of trial {job.trial}  failed: {why}"
            console.print(text, soft_wrap=True, markup=False)
            continue
        rows += [
            {"trial": job.trial, "repeat": job.repeat, **point}
            for point in outcome
            if (job.trial, as_released(point["mixing_ratio"])) in on_front
        ]
        console.print(f"repeat {job.repeat} of trial {job.trial}  done", soft_wrap=True)
    write_sealed_json(sweep.files.repeats, {"repeats": rows})


def _map_on(resources: Resources, limits: Limits) -> Callable[..., Any]:
    """A map over Ray's workers; Ray is imported only if it runs."""
    from search.running.ray_cluster import map_on_ray

    return partial(map_on_ray, resources=resources, limits=limits)


def run_repeat(
    job: RepeatJob, *, threads: int, data: Dataset | None, model: ModelFactory | None
) -> list[dict[str, Any]]:
    """Train or resume one repeat in a worker, and release it; read its points if it is done."""
    torch.set_num_threads(threads)
    files = TrialFolder(job.folder)
    if not read_if_intact(files.points, "The repeat is trained again."):
        run = TrialRun(job.folder, job.config, data, model=model)
        with folder_in_place(job.folder):
            while not run.is_done:
                run.advance()
            run.release()
    files.checkpoint.unlink(missing_ok=True)
    points: list[dict[str, Any]] = read_sealed_json(files.points)["points"]
    return points


def _jobs(sweep: Sweep, repeat: int) -> list[RepeatJob]:
    """One job per configuration on the front, with another seed in each repeat."""
    jobs, on_front = [], sweep.front.points
    for trial in dict.fromkeys(point.trial for point in on_front):
        points = [point for point in on_front if point.trial == trial]
        config = from_dict(points[0].config, TrainConfig)
        released = [point.mixing_ratio for point in points]
        evaluation = replace(
            config.evaluation,
            release_ratios=tuple(ratio for ratio in released if ratio != GLOBAL)
            or config.evaluation.release_ratios[:1],
            release_global=GLOBAL in released,
            n_refinements=0,
        )
        seed = derive_seed(config.seed, "repeat", repeat) % 2**31
        config = replace(config, seed=seed, evaluation=evaluation)
        folder = sweep.files.repeat(trial, repeat).root
        jobs.append(RepeatJob(trial=trial, repeat=repeat, folder=folder, config=config))
    return jobs
