"""The command line, `generalist-search`. Results go to standard output, all else to standard error.

The exit code is 0 only if the work was done; it is 1 if it was not, and 2 for bad usage or input.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click

from generalist_core.user_code import described
from generalist_core.validation import EvaluationError, InvalidConfigError
from search.cli import commands, overview
from search.cli.going_on import AGAIN
from search.errors import SweepInterruptedError, WorkerError
from search.interruption import (
    do_nothing,
    end_at_once,
    interruptible,
    on_interruption,
    raise_interrupted,
    was_interrupted,
)
from search.wording import PROGRAM, printable

EPILOG = """\b
examples:
  generalist-search sweep --data digits --budget 2e6 --out runs/digits
  generalist-search sweep --data cifar10 --data-root data --download --preset paper \\
      --budget 5e9 --gpus-per-trial 0.5 --out runs/cifar10
  generalist-search list runs
  generalist-search front runs/digits --json
  tensorboard --logdir runs/digits/tensorboard

\b
shell completion of commands, options and files, in bash (also zsh and fish):
  eval "$(_GENERALIST_SEARCH_COMPLETE=bash_source generalist-search)"
"""

UNDONE = (EvaluationError, SweepInterruptedError, WorkerError)
"""Errors of work that was begun: exit code 1."""


LAWS: dict[type[OSError], str] = {
    FileNotFoundError: "must exist",
    IsADirectoryError: "must be a file",
    NotADirectoryError: "must be in a folder",
    PermissionError: "must be allowed to be used",
}
"""What is asked of a file, by the error of the operating system."""


class _Program(click.Group):
    """A group that lists its commands in their own order."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)


program = _Program(
    PROGRAM,
    commands=[
        made
        for module in (commands, overview)
        for made in vars(module).values()
        if isinstance(made, click.Command)
    ],
    help="Search for the best natural-robust trade-offs of Generalist adversarial training.",
    epilog=EPILOG,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
click.version_option(package_name=PROGRAM)(program)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    with interruptible(end_at_once, answer=do_nothing):
        try:
            with on_interruption(raise_interrupted):
                code = _code_of(words)
        except KeyboardInterrupt:
            code = 0
        if code == 0 and was_interrupted():
            return _fail(PROGRAM, AGAIN, 1)
        return code


def _code_of(words: list[str]) -> int:
    """The exit code of a command; an error is told."""
    try:
        _require_usable_process(words)
        return _run(words)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else PROGRAM
        return _fail(where, _with_help(error.format_message(), where), 2)
    except click.Abort:
        return _fail(PROGRAM, AGAIN, 1)
    except Exception as error:
        if "--debug" in words:
            raise
        if isinstance(error, UNDONE):
            return _fail(PROGRAM, str(error), 1)
        if isinstance(error, InvalidConfigError | OSError):
            return _fail(PROGRAM, _with_help(_message(error), " ".join([PROGRAM, *words[:1]])), 2)
        return _fail(PROGRAM, f"{described(error)}. See all of it with --debug.", 1)


def _require_usable_process(words: Sequence[str]) -> None:
    """Check what torch and the report would fail on later.

    Raises:
        InvalidConfigError: a word has characters that the locale lacks, or the working directory
            was deleted.
    """
    for word in words:
        if not _is_text(word):
            raise InvalidConfigError(
                f"Arguments must be text in the encoding of the locale, "
                f"{sys.getfilesystemencoding()}, but got {word!a}. Set PYTHONUTF8=1, or use "
                "other names."
            )
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InvalidConfigError(
            "The working directory must exist, but was deleted. Run the command in another one."
        ) from error


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _run(words: list[str]) -> int:
    """Run one command; it ends quietly with 1 if its reader has ended, as in `... | head`."""
    try:
        code: int = program.main(words, PROGRAM, standalone_mode=False) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        if not _has_lost_its_reader(sys.stdout):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1
    return code


def _has_lost_its_reader(stream: TextIO) -> bool:
    """Whether what is still to be written to a stream cannot be."""
    try:
        stream.flush()
    except BrokenPipeError:
        return True
    return False


def _with_help(message: str, command: str) -> str:
    """The message as a sentence, and how to get help."""
    end = "" if message.endswith((".", "?", ")")) else "."
    return f"{message}{end} See {command} --help."


def _message(error: Exception) -> str:
    """The message of an error; one of the operating system becomes a sentence with `must`."""
    if isinstance(error, OSError) and error.strerror is not None:
        law = LAWS.get(type(error), "must be usable")
        return f"{error.filename or 'A file'} {law}, but: {error.strerror}."
    return str(error)


def _fail(command: str, message: str, code: int) -> int:
    """Say what is wrong in one line; returns the exit code."""
    line = re.sub(r"\s*\n\s*", " ", message)
    sys.stderr.write(f"{command}: {printable(line)}\n")
    return code
