"""What a command is doing before its first result; light, so that it is shown at once."""

from __future__ import annotations

from rich.console import Console


def say_stage(console: Console, text: str) -> None:
    """Say on a terminal what is being done, where nothing else would be seen for seconds."""
    if console.is_terminal:
        console.print(f"{text} ...", style="dim", highlight=False, markup=False)
