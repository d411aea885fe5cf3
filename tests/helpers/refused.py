"""Cases of configurations that break a law, and what their errors must say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from generalist_core.validation import InvalidConfigError

Broken = tuple[Callable[..., Any], dict[str, Any], str, str]
"""What is built, from which fields, the law that these break, and the value that breaks it."""


def refusal_of(broken: Sequence[Broken]) -> Callable[..., None]:
    """The test that each error states the law and the value."""

    @pytest.mark.parametrize(("build", "fields", "law", "got"), broken)
    def check(build: Callable[..., Any], fields: dict[str, Any], law: str, got: str) -> None:
        with pytest.raises(InvalidConfigError) as error:
            build(**fields)
        assert law in str(error.value)
        assert got in str(error.value)
        assert " must " in str(error.value)

    return check
