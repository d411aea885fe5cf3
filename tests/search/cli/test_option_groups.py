"""Options arrive as the typed objects that declare them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal

import click
import pytest

from search.cli.option_groups import argument, command, given, option, switch


@dataclass(frozen=True, kw_only=True)
class Colours:
    """A group of options with every kind of value."""

    TITLE = "Colours"

    shade: Literal["light", "dark"] = option("light or dark", default="dark")
    n_layers: int | None = option("number of layers", "N", sets="layers")
    mixed: tuple[str, ...] = option("colours to mix", "NAME", ())
    gloss: bool = switch("shine")
    drying_s: float | None = option("seconds to dry", "S", flag="--drying-time")
    out: Path = option("the new file", "FILE", MISSING)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Another group, with an option of the same field name under another flag."""

    n_layers: int = option("layers of the frame", "N", 1, flag="--frame-layers")


ARRIVED: list[Any] = []


@command("paint wall --out a.png")
def run_paint(
    colours: Colours,
    frame: Frame,
    surface: str = argument("SURFACE"),
    local: bool | None = option("paint here", flag="--local/--no-local"),
) -> None:
    """Paint a surface."""
    ARRIVED[:] = [colours, frame, surface, local]


def painted(*arguments: str) -> list[Any]:
    run_paint.main(list(arguments), "paint", standalone_mode=False)
    return ARRIVED


def test_defaults_arrive_where_nothing_is_given() -> None:
    colours = Colours(mixed=(), out=Path("a.png"))
    assert painted("wall", "--out", "a.png") == [colours, Frame(), "wall", None]
    assert given(colours) == {"shade": "dark", "mixed": (), "gloss": False, "out": Path("a.png")}


def test_values_arrive_with_their_types() -> None:
    text = "wall --out b --shade light --n-layers 3 --mixed red --mixed blue --gloss"
    text += " --drying-time 2 --frame-layers 5 --no-local"
    colours = Colours(
        shade="light", n_layers=3, mixed=("red", "blue"), gloss=True, drying_s=2.0, out=Path("b")
    )
    assert painted(*text.split()) == [colours, Frame(n_layers=5), "wall", False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("wall", "'--out'"),
        ("--out a", "'SURFACE'"),
        ("wall --out a --shade grey", "'light', 'dark'"),
        ("wall --out a --n-layers many", "'many' is not a valid integer"),
    ],
)
def test_what_is_missing_or_of_another_type_is_refused(arguments: str, message: str) -> None:
    with pytest.raises(click.UsageError) as error:
        painted(*arguments.split())
    assert message in error.value.format_message()


def test_the_help_shows_the_groups_under_their_titles() -> None:
    text = run_paint.get_help(click.Context(run_paint))
    plain, _, colours = text.partition("Colours:")
    assert "--frame-layers" in plain
    assert "--local / --no-local" in plain
    assert "--shade [light|dark]" in colours
    assert "--drying-time S" in colours
    assert text.rstrip().endswith("generalist-search paint wall --out a.png")
