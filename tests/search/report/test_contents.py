"""What a report shows."""

from __future__ import annotations

import json

import pytest

from search.report.contents import numbers_alike, without_passwords
from tests.helpers.reports import TWO, ledger_of


@pytest.mark.parametrize("password", ["secret", "secret@secret", "secret/secret"])
def test_passwords_are_left_out(password: str) -> None:
    url = f"postgresql://me:{password}@host/db"
    clean = without_passwords({"storage": url, "command": f"sweep --storage {url} --out x", "n": 3})
    assert "secret" not in json.dumps(clean)
    assert clean["command"] == "sweep --storage postgresql://me:***@host/db --out x"


def test_a_password_in_a_query_is_left_out_and_a_path_is_kept() -> None:
    secret = "sweep --storage postgresql://me@host/db?password=secret --out x"
    assert without_passwords(secret) == secret.replace("=secret", "=***")
    assert without_passwords("sqlite:////a:b@c.db") == "sqlite:////a:b@c.db"


def test_points_that_cannot_be_told_apart_are_numbered_in_the_order_of_the_front() -> None:
    front = ledger_of(12, TWO).results.front()
    names = [point.name for point in front.points]
    numbers = numbers_alike(front)
    for point in front.points:
        assert [names[n - 1] for n in numbers[point.name]] == front.alike(point)
