"""Kinds of failures."""

from __future__ import annotations

import errno

import pytest
import torch

from generalist_core.training.trainer import DivergedError
from generalist_core.validation import InvalidConfigError
from search.study.failures import LASTING, Failure, classify, is_of_storage


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, True), (errno.ENOENT, False)],
)
def test_which_errors_are_the_storages(number: int, expected: bool) -> None:
    assert is_of_storage(OSError(number, "planted")) == expected
    assert not is_of_storage(ValueError("planted"))


def test_a_failure_that_would_happen_again_is_lasting_and_kinds_are_known() -> None:
    kinds = ("worker-died", "orphan")
    assert not any(Failure(kind=kind, reason="").is_lasting for kind in kinds)  # type: ignore[arg-type]
    assert all(Failure(kind=kind, reason="").is_lasting for kind in LASTING)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DivergedError("nan"), "diverged"),
        (MemoryError("planted"), "out-of-memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out-of-memory"),
        (RuntimeError("[enforce fail] not enough memory: 9 GB"), "out-of-memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out-of-memory"),
        (ValueError("not enough memory"), "error"),
        (RuntimeError("planted"), "error"),
    ],
)
def test_an_error_has_a_kind_and_the_failure_its_name(error: Exception, kind: str) -> None:
    failure = classify(error)
    assert failure.kind == kind
    assert failure.reason.startswith(f"{type(error).__name__}: ")
    assert Failure(**failure.to_dict()) == failure


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"`kind` must be one of diverged.*'bad luck'"):
        Failure(kind="bad luck", reason="")  # type: ignore[arg-type]
