"""Published results, read from a CSV."""

from __future__ import annotations

from pathlib import Path

import pytest

from generalist_core.validation import InvalidConfigError
from search.report.published import read_reference
from tests.helpers.reports import TWO, csv_file, drawn, ledger_of, page_of


@pytest.mark.parametrize("rows", ["a,0.9,0.5,WRN\nb,1,0", 'a,90,50,WRN\n"b",100,0'])
def test_published_accuracies_may_be_fractions_or_percent(tmp_path: Path, rows: str) -> None:
    text = f"name,natural,robust,model\n{rows},\n"
    a, b = read_reference(csv_file(tmp_path, text), TWO)
    assert a.accuracies == pytest.approx({"natural": 0.9, "robust": 0.5})
    assert a.details == {"model": "WRN"}
    assert b.accuracies == pytest.approx({"natural": 1, "robust": 0})
    page = page_of(tmp_path, ledger_of(2), reference=[a, b])
    name = "published: other models, other attacks"
    assert drawn(page.figures["front"], name) == [(90.0, 50.0), (100.0, 0.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,natural\na,1\n", "must have the columns name, natural, robust, but has no robust"),
        ("", "but has no name, natural, robust"),
        ("name,natural,robust\na,90,0.5\n", "all in \\[0, 1\\], or all in %"),
        ("name,natural,robust\na,90,many\n", "'many' in .*line 2"),
        ("name,natural,robust\na,90,101\n", "'101' in .*line 2"),
        ("name,natural,robust\na,90,nan\n", "'nan'"),
        ("name,natural,robust\na,90\n", "as many cells as the header.*line 2 of .* has fewer"),
        ("name,natural,robust\na,90,5,6\n", "as many cells as the header.*line 2 of .* has more"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        read_reference(csv_file(tmp_path, text), TWO)


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reference.csv"
    path.write_bytes("name,natural,robust\nMądry,90,5\n".encode("utf-16"))
    with pytest.raises(InvalidConfigError, match="UTF-8"):
        read_reference(path, TWO)
