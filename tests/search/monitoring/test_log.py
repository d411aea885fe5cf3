"""The output of libraries goes to a file, our own warnings to the terminal too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

NOISY = """
import logging, os, sys, warnings
from pathlib import Path
from rich.console import Console
from search.monitoring.log import redirect_output

with redirect_output(Path(sys.argv[1]), console := Console(stderr=True)):
    os.write(2, b"of a C++ library\\n")
    print("of a library, misplaced")
    logging.getLogger("optuna").warning("of Optuna")
    warnings.warn("of Python")
    logging.getLogger("search.running.trial").warning("of ours [a]")
    logging.getLogger("search.running.trial").info("for the file")
    console.print("progress")
print("result")
raise SystemExit("an error")
"""


@pytest.mark.slow
def test_output_of_libraries_is_kept_and_our_warnings_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = subprocess.run(
        [sys.executable, "-c", NOISY, str(log)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "result\n"
    assert done.stderr == "of ours [a]\nprogress\nan error\n"
    kept = log.read_text()
    for noise in (
        "of a C++ library",
        "misplaced",
        "of Optuna",
        "of Python",
        "of ours [a]",
        "for the file",
    ):
        assert kept.count(noise) >= 1
    assert "progress" not in kept
