"""All that a sweep, and the verification of its front, can be asked for.

Nothing here imports Ray or Optuna. The JSON form of `SweepConfig` is the request in `sweep.json`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from generalist_core.config import FGSM, PGD, CustomAttack, MultiTargeted, TrainConfig
from generalist_core.config.fields import (
    AboveOne,
    BelowOne,
    NotNegative,
    Positive,
    with_checked_fields,
)
from generalist_core.config.suite import SuiteConfig, SuitePrecision
from generalist_core.validation import InvalidConfigError, require, require_one_of
from search.folders import SweepFolder

if TYPE_CHECKING:
    from generalist_core.data.splits import Dataset
    from generalist_core.models.build import ModelFactory
    from spaces import Space

SAMPLERS = ("tpe", "nsga2", "nsga3", "gp", "random", "grid")
"""The samplers by name; `search.study.samplers` builds them."""

FIXED = "spaces:fixed"
"""The space of a training of its own, in which there is nothing to search."""

PICKS = (
    "knee, 'natural>=0.85', 'max robust', 'natural=0.3,robust=0.7', TRIAL-RATIO, TRIAL-global or "
    "a row's number"
)
"""The ways to pick a point of a front, see `search.front.pick`."""


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class Resources:
    """What one trial takes, and where trials run.

    A trial takes at most one GPU, or a fraction of it. `workers` trials run at a time (None: as
    many as fit). `address` joins a running Ray cluster: `HOST:PORT`, or `auto` for the one that
    this machine is part of; with None a cluster is started on this machine. A `local` sweep runs
    without Ray, in the calling process, one trial after another.
    """

    cpus_per_trial: Positive[float] = 1.0
    gpus_per_trial: float = 0.0
    workers: Positive[int] | None = None
    address: str | None = None
    local: bool = False

    def __post_init__(self) -> None:
        gpus = self.gpus_per_trial
        if not 0 <= gpus <= 1:
            raise InvalidConfigError(
                "`gpus_per_trial` must be in [0, 1], as a trial trains on one GPU, but got "
                f"{gpus}. Give at most 1; more GPUs run more trials side by side."
            )
        host, _, port = (self.address or "").rpartition(":")
        if not (self.address in (None, "auto") or ("/" not in host and port.isdigit())):
            raise InvalidConfigError(
                f"`address` must be auto or HOST:PORT, but got {self.address!r}."
            )
        if self.local and not (self.workers in (None, 1) and self.address is None):
            raise InvalidConfigError(
                "A local sweep must have one worker and no address, but got "
                f"workers={self.workers}, address={self.address}. Leave these out, or `local`."
            )

    @property
    def threads(self) -> int:
        """CPU threads of one trial."""
        return max(1, int(self.cpus_per_trial))


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class Limits:
    """Time, retry and failure limits of a sweep.

    A trial fails if it trains for longer than `trial_s` seconds. It is taken to hang, and fails,
    if an epoch takes longer than `epoch_s` seconds. A worker that shows no sign of life for
    `heartbeat_s` seconds is ended. A trial whose worker died or was ended, or whose machine was
    lost, continues from its checkpoint up to `max_retries` times. With `may_accumulate`, a
    trial that ran out of memory starts again and works through each batch in two parts. The sweep
    ends after `max_failures` failed trials (None: never).
    """

    trial_s: Positive[float] | None = None
    epoch_s: Positive[float] = 3600.0
    heartbeat_s: Positive[float] = 120.0
    max_retries: NotNegative[int] = 3
    max_failures: Positive[int] | None = None
    may_accumulate: bool = False


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class SuccessiveHalving:
    """A trial continues past a rung only if it is in the best 1/eta of the results there.

    Rungs are numbers of trained epochs: `first_rung`, then each `growth` times the one before it
    (None: eta times). Epochs are used because the same epoch is the same progress of every
    schedule, whatever a trial's first sync is. No trial is stopped before a rung holds eta results.
    """

    eta: AboveOne = 3.0
    first_rung: Positive[int] = 1
    growth: AboveOne | None = None

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """The rungs before the end of a training of `epochs`, rounded, without duplicates."""
        growth = self.eta if self.growth is None else self.growth
        levels: list[int] = []
        exact = float(self.first_rung)
        while (level := round(exact)) < epochs:
            levels += [level] if level not in levels[-1:] else []
            exact *= growth
        return tuple(levels)

    def reports(self, boundaries: Iterable[int], epochs: int) -> dict[int, int]:
        """The epochs at which a trial reports, each with the rung that it reports to.

        `boundaries` are the epochs at which it can report. It reports to a rung at the first
        boundary at or after the rung. If that boundary is past the next rung, the rung is left
        out, because results of too different cost would be compared.
        """
        rungs, due = self.rungs(epochs), dict[int, int]()
        for epoch in sorted(set(boundaries)):
            below = [rung for rung in rungs if rung <= epoch]
            if epoch < epochs and below and below[-1] not in due.values():
                due[epoch] = below[-1]
        return due


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class StopWhenDone:
    """End the sweep once the hypervolume grew by at most `min_growth` over `within_cost`.

    `min_growth` is a fraction of the hypervolume before; 0 means no growth at all. `within_cost` is
    in forward images. Take the cost of several trials, since one trial may well add nothing.
    """

    min_growth: BelowOne
    within_cost: Positive[float]


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class Growing:
    """How lineages grow in a space that has them, see `search.scheduling.lineages`.

    Costs are in forward images per training image: 18 are two epochs with three attack steps. The
    first stage of a lineage ends after `first_cost`, the second after `second_cost`, and each
    further one after `growth` times as much as the one before it, or after what judging its branch
    costs if that is more. `n_first` lineages are begun before any grows. Of each stage the best
    1/eta grow to the next one. A lineage rests after `patience` stages in a row that each raised
    neither its own best hypervolume nor that of the front by more than the fraction `min_growth`,
    or after as many failed branches of a stage.
    """

    n_first: Positive[int] = 5
    first_cost: Positive[float] = 18.0
    second_cost: Positive[float] = 108.0
    growth: AboveOne = 1.5
    eta: AboveOne = 2.5
    patience: Positive[int] = 2
    min_growth: BelowOne = 0.01


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class Population:
    """How a population of lineages is trained, see `search.scheduling.population`.

    Each of `n_members` takes steps that cost `step_cost` forward images per training image. A
    member of the worst `replaced` takes over one of as many best, and changes each of its
    hyperparameters by a quarter, up or down, or draws it anew with the probability `resampled`.
    """

    n_members: Positive[int] = 8
    step_cost: Positive[float] = 36.0
    replaced: Positive[float] = 0.25
    resampled: BelowOne = 0.25

    def __post_init__(self) -> None:
        require(self.n_members >= 2, "n_members >= 2", f"n_members={self.n_members}")
        require(self.replaced <= 0.5, "replaced <= 0.5", f"replaced={self.replaced}")


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class Floor:
    """The least accuracy of interest in an objective; the hypervolume counts from there."""

    objective: str
    accuracy: float

    def __post_init__(self) -> None:
        accuracy = self.accuracy
        cure = f"Did you mean {accuracy / 100:g}?" if 1 < accuracy <= 100 else ""
        require(0 <= accuracy <= 1, "0 <= accuracy <= 1", f"accuracy={accuracy}", cure)


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class WarmupConfig:
    """The folder in which warm-ups are shared, and the bytes they may take (None: no limit)."""

    folder: str
    max_bytes: Positive[int] | None = 10 * 2**30


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class SweepConfig:
    """The whole request of a sweep.

    `base` is the configuration that the space starts from; its seed is that of all trials, while
    `seed` is the sampler's. `storage` is an Optuna storage URL, by default a journal in the output
    folder. `repeats` trains every configuration on the front again, with that many other seeds.
    `at_least` is the region of interest: it directs the sampler, and the hypervolume counts from
    there. Trials share their experts' warm-ups, in the output folder or in the store `warmups`,
    which other sweeps may use too. In a space with lineages `growing` says how these grow, unless
    they are the members of a `population`; in any other `early_stopping` ends weak trials (None:
    off). No trial begins once all `trials` have begun, or once those that ran and run have cost
    `budget` forward images. `stop_when` ends the sweep before, and so does a small space, in which
    no configuration is trained twice; the sampler `grid` with trials=None trains all of them.
    `warm_start` names folders of earlier sweeps, or CSV files, from whose points the sampler learns
    first. With a `round_size` a sweep gives the same points whatever the timing, see
    `search.scheduling.searcher.Rules`.
    """

    base: TrainConfig
    space: str = "lineages"
    trials: Positive[int] | None = 20
    sampler: str = "tpe"
    seed: int = 0
    resources: Resources = field(default_factory=Resources)
    budget: Positive[float] | None = None
    time_budget_s: Positive[float] | None = None
    repeats: NotNegative[int] = 0
    storage: str | None = field(default=None, repr=False)  # it may hold a password
    at_least: tuple[Floor, ...] = ()
    stop_when: StopWhenDone | None = None
    warm_start: tuple[str, ...] = ()
    shares_warmups: bool = True
    warmups: WarmupConfig | None = None
    growing: Growing = field(default_factory=Growing)
    population: Population | None = None
    early_stopping: SuccessiveHalving | None = field(default_factory=SuccessiveHalving)
    limits: Limits = field(default_factory=Limits)
    round_size: Positive[int] | None = None

    def __post_init__(self) -> None:
        is_endless = self.trials is None and self.budget is None and self.time_budget_s is None
        if is_endless and self.sampler != "grid":
            raise InvalidConfigError(
                "A sweep must have an end, but got trials=None without a budget. Give `trials`, "
                "`budget` or `time_budget_s`, or the sampler `grid`, which ends."
            )
        if self.space == FIXED and self.trials != 1:
            raise InvalidConfigError(
                "A training of one configuration must be one trial, but got trials="
                f"{self.trials}. Search around it: sweep --config with its config.json."
            )
        for floor in self.at_least:
            require_one_of("at_least", floor.objective, self.base.evaluation.objective_names)
        require_one_of("sampler", self.sampler, SAMPLERS)

    def store_in(self, folder: Path) -> WarmupConfig | None:
        """The store of warm-ups of a sweep in that folder; None if trials do not share them."""
        default = WarmupConfig(folder=str(SweepFolder(folder).warmups))
        return (self.warmups or default) if self.shares_warmups else None


@dataclass(frozen=True, kw_only=True)
class CustomParts:
    """What the caller passes from Python: a space, images, a factory of models (None: built in)."""

    space: Space | None = None
    data: Dataset | None = None
    model: ModelFactory | None = None


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class VerifyConfig:
    """The attacks of a verification and the number of test images (None: all).

    See `generalist_core.config.suite.SuiteConfig`.
    """

    attacks: tuple[str, ...] = ("pgd-20", "autoattack")
    n_images: int | None = None
    batch_size: int | None = None
    seed: int = 0
    n_queries: int = 5000
    precision: SuitePrecision = "float32"

    def __post_init__(self) -> None:
        self.suite(PGD(epsilon=0.0))

    def suite(self, attack: FGSM | PGD | MultiTargeted | CustomAttack) -> SuiteConfig:
        """The attack suite in the ball of an objective's attack."""
        return SuiteConfig(
            norm=attack.norm,
            epsilon=attack.epsilon,
            attacks=self.attacks,
            n_images=self.n_images,
            batch_size=self.batch_size,
            seed=self.seed,
            n_queries=self.n_queries,
            precision=self.precision,
        )
