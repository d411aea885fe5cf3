"""The command line as a whole: help, completion, errors and exit codes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest

from search.cli.main import main, program
from tests.helpers.command_line import parse

NAMES = ["train", "sweep", "resume", "front", "export", "explain", "report", "verify", "evaluate"]
NAMES += ["list", "trials", "compare", "clean"]


def test_the_help_lists_the_commands_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2]
    assert re.findall(r"^  (\w+) .*\.$", listed, flags=re.MULTILINE) == NAMES


@pytest.mark.parametrize("command", NAMES)
def test_every_help_ends_with_an_example_that_is_understood(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out.partition("example:\n")[2]
    program, *arguments = shlex.split(shown.replace("\\\n", " "))
    assert (program, arguments[0]) == ("generalist-search", command)
    context = parse(arguments)
    assert context.command.name == command
    assert context.params["output__quiet"] is False


def test_quiet_and_debug_stand_after_any_command() -> None:
    for command in NAMES:
        flags = {option for p in program.commands[command].params for option in p.opts}
        assert {"--quiet", "--debug"} <= flags


def test_the_shell_completes_commands_and_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_GENERALIST_SEARCH_COMPLETE", "bash_complete")
    for words, expected in {
        "": NAMES,
        "front --p": ["--pick"],
        "sweep --print": ["--print-file"],
        "train --preset s": ["short"],
    }.items():
        monkeypatch.setenv("COMP_WORDS", f"generalist-search {words}")
        monkeypatch.setenv("COMP_CWORD", str(1 + words.count(" ")))
        with pytest.raises(SystemExit):
            main([])
        found = [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()]
        assert found == expected


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert version("generalist-search") in capsys.readouterr().out


def test_no_command_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--help" in capsys.readouterr().err


def test_ctrl_c_ends_a_command_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.open_sweep", interrupt)
    assert main(["front", "anywhere"]) == 1
    assert (
        capsys.readouterr().err.strip() == "generalist-search: Interrupted. Run the command again."
    )


def test_a_reader_that_ends_early_is_no_error() -> None:
    """As `generalist-search --help | head -1`."""
    words = [sys.executable, "-c", "from search.cli.main import main; raise SystemExit(main())"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        ended = subprocess.run(
            [*words, "--help"], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ended.returncode, ended.stderr) == (1, "")
