"""How long a trial may take, how often it may be begun again, and how many may fail."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from generalist_core.config import FGSM, PGD, OwnAttack, TrainConfig
from generalist_core.config.suite import SuiteConfig
from generalist_core.data.splits import Dataset
from generalist_core.models import ModelFactory
from generalist_core.validation import require, require_between, require_one_of, require_positive
from search.running.warmups import WarmupStore
from search.study.samplers import build_samplers
from spaces import Space


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a sweep puts up with.

    A trial fails that trains longer than `trial_s` seconds, or for `epoch_s` without an end of an
    epoch: it hangs. A trial whose worker died, or whose machine was lost, goes on from its
    checkpoint, up to `max_retries` times. One that ran out of memory begins again with half the
    batch at a time, if it `may_accumulate`. After `max_failures` failed trials the sweep ends
    (None: never).
    """

    trial_s: float | None = None
    epoch_s: float = 3600.0
    max_retries: int = 3
    max_failures: int | None = None
    may_accumulate: bool = False

    def __post_init__(self) -> None:
        require(self.trial_s is None or self.trial_s > 0, "trial_s > 0", f"{self.trial_s}")
        require_positive("epoch_s", self.epoch_s)
        require(self.max_retries >= 0, "max_retries >= 0", f"{self.max_retries}")
        limit = self.max_failures
        require(limit is None or limit > 0, "max_failures > 0", f"{limit}")


@dataclass(frozen=True, kw_only=True)
class Halving:
    """A trial goes on from a rung only if it is in the best 1/eta of the results there.

    Rungs are numbers of trained epochs: `first_rung`, then each `growth` times the one before it,
    `growth` being eta by default. (The same epoch is the same resource and the same progress of all
    schedules, whatever a trial's sync.) Nobody is stopped before a rung holds eta results.
    """

    eta: float = 3.0
    first_rung: int = 1
    growth: float | None = None

    def __post_init__(self) -> None:
        require(1 < self.eta < math.inf, "eta > 1", f"eta={self.eta}")
        require_positive("first_rung", self.first_rung)
        growth = self.growth
        require(growth is None or 1 < growth < math.inf, "growth > 1", f"growth={growth}")

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """The rungs before the end of a training of `epochs`, rounded, each once."""
        growth = self.eta if self.growth is None else self.growth
        levels: list[int] = []
        exact = float(self.first_rung)
        while (level := round(exact)) < epochs:
            levels += [level] if level not in levels[-1:] else []
            exact *= growth
        return tuple(levels)

    def reports(self, boundaries: Iterable[int], epochs: int) -> dict[int, int]:
        """The epochs at which a trial reports, each with the rung that it reports to.

        `boundaries` are the epochs at which it could. A rung is reported to at the first boundary
        at or after it; if that is past the next rung, the rung is left out: then it would compare
        what cost too different amounts.
        """
        rungs = np.array(self.rungs(epochs), dtype=np.int64)
        due: dict[int, int] = {}
        for epoch in sorted(set(boundaries)):
            below = rungs[rungs <= epoch]
            if epoch < epochs and len(below) and below[-1] not in due.values():
                due[epoch] = int(below[-1])
        return due


@dataclass(frozen=True, kw_only=True)
class Branching:
    """Branches a family may have at `first`, and how many `more` for each that paid.

    A branch pays if the front's hypervolume grew by the fraction `min_growth`. Of all proposals at
    most `most` are branches: the front's corners are decided in warm-ups, and many branches on poor
    ones each add a little for ever.
    """

    first: int = 2
    more: int = 2
    min_growth: float = 0.01
    most: float = 0.5

    def __post_init__(self) -> None:
        require(self.first >= 1, "first >= 1", f"first={self.first}")
        require(self.more >= 0, "more >= 0", f"more={self.more}")
        require(self.min_growth >= 0, "min_growth >= 0", f"min_growth={self.min_growth}")
        require_between("most", self.most, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The least accuracy of interest in an objective; the front counts from there."""

    objective: str
    accuracy: float

    def __post_init__(self) -> None:
        require_between("accuracy", self.accuracy, 0, 1)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The whole request. `config` is what the space starts from; its seed is that of all trials.

    `storage` is an Optuna storage URL, by default a journal in the output folder. `seed` is the
    sampler's. `repeats` trains every configuration on the front again with so many other seeds.
    `at_least` is the region of interest: it directs the sampler, and the hypervolume counts from
    there. Trials share their experts' warm-ups, in the output folder or in the store `warmups`,
    which other sweeps may use too. `branching` proposes further trials on warm-ups that pay,
    `early_stopping` ends weak trials (None: not), `stop_when` the whole sweep before its `trials`.
    `warm_start` names folders of earlier sweeps, or CSV files, whose points the sampler starts
    from. `limits` say what is put up with. With a `round_size` the sweep gives the same points
    whatever the timing, see `search.searcher`.
    """

    config: TrainConfig
    space: str = "full"
    trials: int = 20
    sampler: str = "tpe"
    seed: int = 0
    resources: Resources = field(default_factory=Resources)
    time_budget_s: float | None = None
    repeats: int = 0
    storage: str | None = None
    at_least: tuple[Floor, ...] = ()
    stop_when: StopWhenDone | None = None
    warm_start: tuple[str, ...] = ()
    shares_warmups: bool = True
    warmups: WarmupConfig | None = None
    branching: Branching | None = None
    early_stopping: Halving | None = field(default_factory=Halving)
    limits: Limits = field(default_factory=Limits)
    round_size: int | None = None

    def __post_init__(self) -> None:
        require_positive("trials", self.trials)
        for floor in self.at_least:
            require_one_of("at_least", floor.objective, self.config.evaluation.objectives)
        build_samplers(self.sampler, seed=0, n_startup=1)
        require(self.repeats >= 0, "repeats >= 0", f"repeats={self.repeats}")
        budget = self.time_budget_s
        require(budget is None or budget > 0, "time_budget_s > 0", f"time_budget_s={budget}")
        size = self.round_size
        require(size is None or size > 0, "round_size > 0", f"round_size={size}")

    def store_in(self, folder: Path) -> WarmupConfig | None:
        """The store of warm-ups of a sweep in that folder; None if trials do not share them."""
        own = WarmupConfig(folder=str(folder / "warmups"))
        return (self.warmups or own) if self.shares_warmups else None


@dataclass(frozen=True, kw_only=True)
class OwnParts:
    """What the caller brings from Python: a space, images, a factory of models; None if not."""

    space: Space | None = None
    data: Dataset | None = None
    model: ModelFactory | None = None


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial takes, how many run at a time (None: as many as fit), and on which cluster.

    GPUs may be fractions of one. `address` joins a running Ray cluster, `HOST:PORT` or `auto` for
    the one that this machine is part of; None starts one on this machine. A `local` sweep runs
    without Ray, in the calling process, one trial after another.
    """

    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    workers: int | None = None
    address: str | None = None
    local: bool = False

    def __post_init__(self) -> None:
        require(self.workers is None or self.workers > 0, "workers > 0", f"{self.workers}")
        require_positive("cpus_per_trial", self.cpus_per_trial)
        gpus = self.gpus_per_trial
        whole = gpus >= 0 and (gpus <= 1 or float(gpus).is_integer())
        require(whole, "gpus_per_trial a fraction of one GPU, or whole", f"{gpus}")
        host, _, port = (self.address or "").rpartition(":")
        is_known = self.address in (None, "auto") or ("/" not in host and port.isdigit())
        require(is_known, "address auto or HOST:PORT", f"{self.address}")
        alone = self.workers in (None, 1) and self.address is None
        got = f"workers={self.workers}, address={self.address}"
        cure = "Leave out local, or the others."
        require(not self.local or alone, "one worker and no address with local", got, cure)

    @property
    def threads(self) -> int:
        """CPU threads of one trial."""
        return max(1, int(self.cpus_per_trial))


@dataclass(frozen=True, kw_only=True)
class StopWhenDone:
    """Done once the hypervolume grew by no more than `min_growth` within the last `within_cost`.

    `min_growth` is a fraction of the hypervolume before, 0 meaning no growth at all. `within_cost`
    is in forward images; take several trials' worth of it, as one trial may well add nothing.
    """

    min_growth: float
    within_cost: float

    def __post_init__(self) -> None:
        require(0 <= self.min_growth < 1, "0 <= min_growth < 1", f"min_growth={self.min_growth}")
        require_positive("within_cost", self.within_cost)


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Which attacks, on how many test images (all if None); see SuiteConfig."""

    attacks: tuple[str, ...] = ("pgd-20", "autoattack")
    n_images: int | None = None
    batch_size: int = 250
    seed: int = 0
    n_queries: int = 5000

    def __post_init__(self) -> None:
        self.suite(PGD(epsilon=0.0))

    def suite(self, attack: PGD | FGSM | OwnAttack) -> SuiteConfig:
        """The suite in the ball of an objective's attack."""
        return SuiteConfig(
            norm=attack.norm,
            epsilon=attack.epsilon,
            attacks=self.attacks,
            n_images=self.n_images,
            batch_size=self.batch_size,
            seed=self.seed,
            n_queries=self.n_queries,
        )


@dataclass(frozen=True, kw_only=True)
class WarmupConfig:
    """Where warm-ups are shared, and how much they may take."""

    folder: str
    max_bytes: int | None = 10 * 2**30

    def __post_init__(self) -> None:
        limit = self.max_bytes
        require(limit is None or limit > 0, "max_bytes > 0", f"max_bytes={limit}")

    def open(self, owner: str) -> WarmupStore:
        """The store, for the trial that `owner` names."""
        return WarmupStore(Path(self.folder), max_bytes=self.max_bytes, owner=owner)
