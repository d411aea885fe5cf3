"""Cases of configurations that break a law, and what their errors must say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from generalist_core.validation import InvalidConfigError

Broken = tuple[Callable[..., Any], dict[str, Any], str, str]
"""What is built, from which fields, the law that these break, and the value that breaks it."""


def assert_refused(build: Callable[..., Any], fields: dict[str, Any], law: str, got: str) -> None:
    """Check that the error states the law and the value."""
    with pytest.raises(InvalidConfigError) as error:
        build(**fields)
    assert law in str(error.value)
    assert got in str(error.value)
    assert " must " in str(error.value)
