"""How long a trial may take, how often it may be begun again, and how many may fail."""

from __future__ import annotations

from dataclasses import dataclass

from generalist_core.validation import require, require_positive


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
