"""A finished sweep without Ray: two trainings, told to a ledger as the searcher does."""

from __future__ import annotations

import shutil
from pathlib import Path

from generalist_core.config import TrainConfig
from generalist_core.data.splits import Dataset
from search.config import SweepConfig
from search.folders import SweepFolder
from search.report.write import write_files
from search.running.trial import TrialRun, with_release_ratio
from search.study.folder import Sweep, custom_parts, open_sweep, write_request
from search.study.ledger import Ledger
from search.study.samplers import build_samplers
from search.study.storage import open_storage
from spaces import SPACES


def small_sweep(folder: Path, config: TrainConfig, data: Dataset | None = None) -> Sweep:
    """Two trials of the space `smoke`, their study, and their report."""
    request = SweepConfig(base=config, space="smoke", trials=2, sampler="random")
    folder.mkdir(parents=True)
    files = SweepFolder(folder)
    write_request(folder, request, "small", custom_parts(data, None))
    storage = open_storage(None, files.journal)
    sampler = build_samplers("random", seed=0, n_startup=1)
    ledger = Ledger(storage, config.evaluation.objective_names, sampler_of=sampler, study="small")
    for _ in range(request.trials):
        proposal = ledger.ask(SPACES["smoke"], config)
        released = with_release_ratio(proposal.config, proposal.mixing_ratio)
        run = TrialRun(files.trial(proposal.trial).root, released, data)
        while not run.is_done:
            run.advance()
        cost = {"forward_images": run.trainer.forward_images, "seconds": run.training.seconds}
        ledger.tell_released(proposal.trial, run.release(), cost)
    write_files(folder, ledger.results)
    return open_sweep(folder)


def copy_of(folder: Path, to: Path) -> Sweep:
    """A copy of a sweep, which a test may change."""
    return open_sweep(Path(shutil.copytree(folder, to)))
