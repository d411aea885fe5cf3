"""What a sweep keeps on disk: what it needs to resume and to make the mixtures on the front.

How much that is can be told from the size of the model before a sweep begins.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from generalist_core.config import SGD, ExpertConfig, RMSprop, TrainConfig
from generalist_core.models.state import averaged_tensors
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.warmup_keys import ratio_is_constant
from search.config import CustomParts, SweepConfig, WarmupConfig
from search.folders import SweepFolder, TrialFolder
from search.lease import is_held
from search.running.mixtures import empty_model
from search.running.trial import cached_dataset
from search.running.warmups import largest_gap, needless
from search.scheduling.callbacks import Callback
from search.study.failures import Failure
from search.study.results import Results
from search.wording import plural
from spaces import Space, load_space
from spaces.lineages import LENGTH, robust_experts
from spaces.parameters import parameters_of_space

log = logging.getLogger(__name__)


class Housekeeping(Callback):
    """Removes the checkpoint of a trial that ended, and averages that have left the front."""

    def __init__(self, trials: Path) -> None:
        self.trials = trials

    def on_completed(self, trial: str, _: Sequence[OperatingPoint], results: Results) -> None:
        """Keep the averages that the front needs."""
        self._remove_what_resumes(trial)
        for averages in needless_averages(self.trials, results):
            averages.unlink(missing_ok=True)

    def on_failed(self, trial: str, _: Failure, __: Results) -> None:
        """A failed trial is not resumed."""
        self._remove_what_resumes(trial)

    def on_stopped(self, trial: str, _: int, __: Results) -> None:
        """A stopped trial is not resumed."""
        self._remove_what_resumes(trial)

    def _remove_what_resumes(self, trial: str) -> None:
        files = TrialFolder(self.trials / trial)
        for file in (files.checkpoint, files.heartbeat):
            file.unlink(missing_ok=True)


def needless_averages(trials: Path, results: Results) -> list[Path]:
    """Where the averages are, if they are, of trials that have ended and are not on the front."""
    on_front = {point.trial for point in results.front().points}
    return [
        TrialFolder(folder).averages
        for folder in trials.glob("*")
        if folder.name not in on_front and results.has_ended(folder.name)
    ]


def removable(folder: Path, results: Results) -> dict[str, list[Path]]:
    """What no command needs any more of a sweep that does not run: files and folders by their kind.

    Shared warm-ups stay while a trial is unfinished, and while another sweep trains in them. The
    folder `lost` stays, too: nothing else has what is in it.
    """
    files = SweepFolder(folder)
    ended = [
        TrialFolder(trial) for trial in files.trials.glob("*") if results.has_ended(trial.name)
    ]
    is_used = results.counts().unfinished > 0 or any(map(is_held, files.warmups.glob("*/claim")))
    found = {
        "shared warm-ups": [] if is_used else [files.warmups],
        "checkpoints of trials that ended": [trial.checkpoint for trial in ended],
        "weights of trials that are not on the front": needless_averages(files.trials, results),
        "files that were partly written": partly_written(folder),
        "files of Ray Tune": [files.ray],
    }
    return {
        kind: [path for path in paths if path.exists() and not path.is_symlink()]
        for kind, paths in found.items()
    }


def partly_written(folder: Path) -> list[Path]:
    """What a crash left of the files that were being written."""
    aside = f".*.{'[0-9a-f]' * 16}"  # as `search.files.write_bytes` names them
    places = (aside, f"trials/*/{aside}")
    return [part for place in places for part in folder.glob(place)]


def remove_leftovers(folder: Path, results: Results) -> None:
    """Remove what a crash left: partly written files, and checkpoints of trials that have ended.

    Folders of trials that the study does not know are moved to `lost`: the study is an earlier
    state than they are, and will give their names to other trials.
    """
    for part in partly_written(folder):
        part.unlink(missing_ok=True)
    files = SweepFolder(folder)
    for trial in (*files.trials.glob("*"), *files.all_repeats.glob("*")):
        if not results.was_asked(trial.name.partition("-")[0]):
            files.lost.mkdir(exist_ok=True)
            kept = trial.rename(files.lost / f"{trial.parent.name}-{trial.name}-{token_hex(4)}")
            log.warning("The study does not have trial %s. It is kept in %s.", trial.name, kept)
    for trial in files.trials.glob("*"):
        if results.has_ended(trial.name):
            TrialFolder(trial).checkpoint.unlink(missing_ok=True)
        TrialFolder(trial).heartbeat.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Room:
    """Bytes of weights: `kept` of `trials` trials at most, and `running` more of each that runs.

    A trial that runs has a checkpoint, and a second one while it is replaced.
    """

    trials: int
    kept: int
    running: int

    def text(self, free: int) -> str:
        """What a sweep takes, where that many bytes are free."""
        few = "" if self.kept + self.running <= free else ": TOO LITTLE for all of it"
        return (
            f"weights take up to {_size(self.kept)} after {plural(self.trials, 'trial')}, and "
            f"{_size(self.running)} more for each that runs; {_size(free)} are free{few}"
        )


def free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder, which need not exist yet."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free


def room_of(config: SweepConfig, custom: CustomParts) -> Room:
    """The room that a sweep takes at most, from the size of its model."""
    base = config.base
    network = empty_model(base, custom.data or cached_dataset(base.data), custom.model)
    weights = sum(tensor.nbytes for tensor in averaged_tensors(network).values())
    weights *= 2 if base.precision == "float64" else 1
    return room_needed(config, custom.space or load_space(config.space), weights)


def room_needed(config: SweepConfig, space: Space, weights: int) -> Room:
    """The room that a sweep takes at most, for a model whose averaged tensors take `weights` bytes.

    Trials are taken to differ in all that the space searches, and to stay on the front. Without a
    number of trials it is the room of one. Reports and logs, some 10 MB, are not counted.
    """
    base, searched = config.base, parameters_of_space(space, config.base)
    grows, n = LENGTH in searched, config.trials or 1
    states = {e.name: (2 + _slots(e, searched)) * weights for e in base.experts}
    averages = (len(base.experts) + (base.evaluation.release_global and not grows)) * weights
    best = 0 if grows or base.evaluation.release == "last" else averages
    extra = 0 if base.mixing.source == "experts" and ratio_is_constant(base) else weights
    warmups, shared = 0, config.shares_warmups
    for expert in base.experts if shared and not grows else ():
        warmups += (states[expert.name] + extra) * _n_states(base, expert, searched, n)
    if shared and grows:  # a robust expert's at the end of each stage
        warmups = max(states[robust.name] for robust in robust_experts(base)) * n
    most = config.warmups.max_bytes if config.warmups else WarmupConfig(folder="").max_bytes
    return Room(
        trials=n,
        kept=n * averages + min(warmups, most or warmups),
        running=2 * (sum(states.values()) + weights + best),
    )


def _slots(expert: ExpertConfig, searched: Collection[str]) -> int:
    """Tensors that the optimizer keeps for each weight; the most where its kind is searched."""
    optimizer = expert.optimizer
    if f"experts.{expert.name}.optimizer" in searched:
        return 2
    if isinstance(optimizer, SGD):
        return int(optimizer.momentum > 0)
    return 1 + (not isinstance(optimizer, RMSprop) or optimizer.momentum > 0)


def _n_states(
    base: TrainConfig, expert: ExpertConfig, searched: Collection[str], n_trials: int
) -> int:
    """The most states of an expert's warm-ups that stay.

    Of a warm-up that trials share, a shorter one may add its last state.
    """
    last = base.epochs - 1 if "sync.start_epoch" in searched else base.sync.start_epoch
    stay = list[int]()
    for epoch in sorted({*range(0, last + 1, base.evaluation.every_epochs), last} - {0}):
        stay.append(epoch)
        lost = needless(stay, largest_gap(base, expert, epoch))
        stay = [kept for kept in stay if kept not in lost]
    whose = (f"experts.{expert.name}.", "mixing.decay", "mixing.source")
    if any(f"{name}.".startswith(whose) for name in searched):
        return n_trials * len(stay)
    return min(n_trials - 1 + len(stay), last)


def _size(n_bytes: float) -> str:
    """Such as `320 MB`."""
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.3g} MB"
