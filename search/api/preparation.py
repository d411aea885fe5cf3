"""What is checked of a sweep before it begins, and a look at what it would be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from generalist_core.config.codec import to_dict
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory
from generalist_core.training.cost import evaluation_cost, update_cost
from generalist_core.user_code import absolute_name, pinned, running_user_code
from generalist_core.validation import InvalidConfigError
from search.config import CustomParts, Resources, SweepConfig
from search.files import make_folder, require_new
from search.running.housekeeping import Room, free_bytes, room_of
from search.running.preflight import check_that_it_can_start, require_apart
from search.scheduling.proposers import has_lineages, require_lineages
from search.study.folder import pinned_space
from search.study.records import Observation
from search.study.storage import absolute_url
from search.study.trials import parameters_of
from search.study.warm_start import earlier_observations, say_what_differs
from search.wording import plural
from spaces import Space, base_suggestion, load_space, paper_suggestion
from spaces.grid import grid_size
from spaces.parameters import Choices, Range, explored

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """A sweep that was not begun: its request, what its space asks for, cost and disk.

    `choices` and `ranges` are by parameter, and a grid has `n_configurations`. `trial_cost` is that
    of one training without an early stop and of its release, if it shares nothing, and `cost` that
    of the sweep, both in forward images; None where nothing says it. `room` is what its weights
    take at most.
    """

    config: SweepConfig
    choices: Mapping[str, Choices]
    ranges: Mapping[str, Range]
    n_configurations: int | None
    n_train: int
    n_validation: int
    trial_cost: float | None
    cost: float | None
    room: Room
    free_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; the storage of the study, which may hold a password, is left out."""
        document = {"request": to_dict(replace(self.config, storage=None)), **asdict(self)}
        del document["config"]
        return {**document, "ranges": {name: r._asdict() for name, r in self.ranges.items()}}

    def values_texts(self) -> dict[str, str]:
        """What each parameter may be, in the order of their names."""
        texts = {name: ", ".join(map(str, choices)) for name, choices in self.choices.items()}
        for name, (low, high, step, log) in self.ranges.items():
            how = ", logarithmic" if log else f", step {step:g}" if step else ""
            texts[name] = f"{low:.4g} to {high:.4g}{how}"
        return dict(sorted(texts.items()))

    def estimates(self) -> list[str]:
        """Sentences on the images, the cost and the disk."""
        cost = "not known before" if self.cost is None else f"about {self.cost:.3g} forward images"
        each = "lengths are searched"
        if self.trial_cost is not None:
            each = f"{self.trial_cost:.3g} for a whole training that shares nothing"
        grid = (
            [f"Grid: {plural(self.n_configurations, 'configuration')}"]
            if self.n_configurations
            else []
        )
        return [
            *grid,
            f"Images: {self.n_train} to train, {self.n_validation} to validate",
            f"Cost: {cost} ({each})",
            f"Disk: {self.room.text(self.free_bytes)}",
        ]


def rehearse(config: SweepConfig, folder: str | Path) -> Rehearsal:
    """Do all that a sweep does before it begins, and begin nothing; raises as `prepare` does.

    Whether the study's storage can be written is not tried.

    Raises:
        SweepFolderError: the folder is not new or empty.
    """
    folder = Path(folder).absolute()
    require_new(folder)
    data = load_dataset(config.base.data)
    prepared = prepare(config, folder, None, data, None)
    config, base, space = prepared.config, prepared.config.base, prepared.space
    explorer = explored(space, base)
    trial_cost = None
    if not has_lineages(space, base):
        n_judged = min(base.evaluation.n_images or len(data.validation), len(data.validation))
        n_released = len(base.evaluation.release_ratios) + base.releases_global
        released = n_released * evaluation_cost(base.evaluation)
        updates = base.epochs * sum(map(update_cost, base.experts))
        trial_cost = float(updates * len(data.train) + released * n_judged)
    of_trials = prepared.n_trials * trial_cost if prepared.n_trials and trial_cost else None
    return Rehearsal(
        config=config,
        choices={name: choices for name, choices in explorer.found.items() if choices},
        ranges=explorer.ranges,
        n_configurations=prepared.n_configurations,
        n_train=len(data.train),
        n_validation=len(data.validation),
        trial_cost=trial_cost,
        cost=min((c for c in (config.budget, of_trials) if c is not None), default=None),
        room=room_of(
            replace(config, trials=prepared.n_trials), CustomParts(space=space, data=data)
        ),
        free_bytes=free_bytes(folder),
    )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A sweep that can begin: the request that can run, its space, what it learns from first.

    `pins` are the digests of the file of the space and of the images, and `n_configurations` is the
    size of a grid.
    """

    config: SweepConfig
    space: Space
    earlier: Sequence[Observation]
    pins: Mapping[str, str]
    n_configurations: int | None

    @property
    def n_trials(self) -> int | None:
        """The most trials that there can be, as far as their number says it."""
        known = (n for n in (self.config.trials, self.n_configurations) if n is not None)
        return min(known, default=None)


def prepare(
    config: SweepConfig,
    folder: Path,
    space: Space | None,
    data: Dataset | None,
    model: ModelFactory | None,
    say: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Try out all that a sweep needs, and write nothing; the arguments are those of a sweep.

    `say` is told what is being done.

    Raises:
        InvalidConfigError: a setting that cannot work.
    """
    config = _without_earlier(pinned_request(config))
    require_apart(folder, config.warmups)
    with running_user_code(f"space {config.space}"):
        given, space = space, space or load_space(config.space)
        pins = pinned_space(config, given)
        for make in (paper_suggestion, base_suggestion):
            make(space, config.base)
        require_lineages(config, space)
        n_configurations = grid_size(space, config.base) if config.sampler == "grid" else None
    earlier = [
        seen for name in config.warm_start for seen in earlier_observations(Path(name), config)
    ]
    for seen in earlier:
        parameters_of(seen, space, config.base)
    config, images = check_that_it_can_start(config, data, model, say)
    require_ray(config.resources)
    say_what_differs(config.warm_start, config.base, images)
    pins = {**pins, "images": images}
    return Prepared(
        config=config, space=space, earlier=earlier, pins=pins, n_configurations=n_configurations
    )


def _without_earlier(config: SweepConfig) -> SweepConfig:
    """The request, whose base has no settings of earlier epochs: trials begin with their own."""
    names = [expert.name for expert in config.base.experts if expert.earlier]
    if not names:
        return config
    log.warning(
        "Trials begin with settings of their own: `earlier` of %s is left out of the base.",
        ", ".join(names),
    )
    experts = tuple(replace(expert, earlier=()) for expert in config.base.experts)
    return replace(config, base=replace(config.base, experts=experts))


def require_ray(resources: Resources) -> None:
    """Check that Ray is there and a trial has room in it; imports Ray only if needed."""
    if resources.local:
        return
    try:
        from search.running.ray_cluster import require_room
    except ModuleNotFoundError as error:
        raise InvalidConfigError(
            f"A sweep must have Ray unless it is local, but {error}. Install ray[tune], or give "
            "--local."
        ) from error
    require_room(resources)


def pinned_request(config: SweepConfig, model: ModelFactory | None = None) -> SweepConfig:
    """The request with absolute paths, for commands elsewhere, and with digests of files.

    A `model` takes the place of the one that the request names, whose file may be gone.
    """
    storage = config.storage if config.storage is None else absolute_url(config.storage)
    base, space = pinned(config.base, has_model=model is not None), absolute_name(config.space)
    return replace(config, base=base, space=space, storage=storage)


def make_store(config: SweepConfig) -> None:
    """Make the store of warm-ups that a request names."""
    if config.warmups is not None:
        make_folder(Path(config.warmups.folder), "Give another --warmups.")
