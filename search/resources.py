"""What a trial takes, and where trials run."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from generalist_core.validation import InvalidConfigError, require, require_positive

CONNECTING_S = 10.0
"""How long the head of a cluster may take to answer; Ray itself tries for many minutes."""


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


def require_reachable(address: str) -> None:
    """Check that something listens at HOST:PORT; `auto` is for Ray to find.

    Raises:
        InvalidConfigError: nothing does.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTING_S).close()
    except (OSError, OverflowError) as error:
        raise InvalidConfigError(
            f"`address` must be that of a running Ray cluster, but at {address}: {error}."
        ) from error
