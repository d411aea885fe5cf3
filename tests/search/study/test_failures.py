"""Kinds of failures: which are the storage's, and which would come again."""

from __future__ import annotations

import errno

import pytest

from search.study.failures import LASTING, Failure, is_of_storage


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, True), (errno.ENOENT, False)],
)
def test_which_errors_are_the_storages(number: int, expected: bool) -> None:
    assert is_of_storage(OSError(number, "planted")) == expected
    assert not is_of_storage(ValueError("planted"))


def test_a_failure_that_would_come_again_is_lasting_and_kinds_are_known() -> None:
    kinds = ("worker-died", "orphan")
    assert not any(Failure(kind=kind, reason="").is_lasting for kind in kinds)  # type: ignore[arg-type]
    assert all(Failure(kind=kind, reason="").is_lasting for kind in LASTING)  # type: ignore[arg-type]
