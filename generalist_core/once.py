"""Warnings that a process gives once."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

_said: set[str] = set()


def warn_once(message: str, about: str = "") -> None:
    """Log a warning, unless the same was logged before, or another one about the same."""
    key = about or message
    if key not in _said:
        _said.add(key)
        log.warning(message)
