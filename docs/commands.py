"""Writes docs/cli.md, the reference of the command line, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from search.cli.main import program

PAGE = Path(__file__).with_name("cli.md")


def reference() -> str:
    """The page: for each command its usage, what it does, and its options by their groups."""
    top = click.Context(program, info_name=program.name)
    lines = ["# Command line", "", f"{program.help} `make docs` writes this page."]
    for name, command in program.commands.items():
        context = click.Context(command, info_name=name, parent=top)
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        lines += ["", f"## {name}", "", f"`{usage}`", "", str(command.help)]
        lines += _options(command, context)
        _, _, example = str(command.epilog).partition("example:\n")
        lines += ["", "```sh", *(line.removeprefix("  ") for line in example.split("\n")), "```"]
    return "\n".join([*lines, ""])


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """A list of the options under the title of each group."""
    groups: dict[str, list[str]] = {}
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            title = getattr(parameter, "title", "Options")
            groups.setdefault(title, []).append(f"- `{record[0]}`: {record[1]}")
    for title in sorted(groups, key="Options".__ne__):
        yield from ("", f"**{title}**", "", *groups[title])


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
