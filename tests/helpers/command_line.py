"""Commands as they are typed, parsed and not run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import click

from search.cli.main import program

TINY = shlex.split("--n-train 100 --n-validation 50 --width 2 --epochs 2 --batch-size 16")
"""The options of a training of a second."""


def parse(arguments: Sequence[str]) -> click.Context:
    """The command with its options.

    Raises:
        click.UsageError: the command line does not accept the arguments.
    """
    name, command, rest = program.resolve_command(click.Context(program), list(arguments))
    assert command is not None
    return command.make_context(name, rest)
