"""Commands whose standard streams are closed or full, or whose process is unusual."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.cli.main import main
from search.streams import dropping
from tests import ROOT

LOCAL = (
    "sweep --data digits --n-train 100 --n-validation 50 --width 2 --epochs 2 --batch-size 16 "
    "--space smoke --trials 1 --local --out"
)


def test_a_full_disk_takes_no_notice() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    stream = dropping(descriptor, "ascii")
    stream.write("schön\n")
    stream.flush()
    os.close(descriptor)


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = line.replace("COMMAND", f"{sys.executable} -m search")
    settings = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=settings, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&-", "2>/dev/full", ">&- 2>&- <&-"])
def test_a_sweep_needs_no_streams(streams: str, tmp_path: Path) -> None:
    ended = shell(f"COMMAND {LOCAL} {tmp_path}/out {streams}")
    assert (ended.returncode, (tmp_path / "out" / "report.html").is_file()) == (0, True), ended


def test_results_that_cannot_be_printed_are_an_error() -> None:
    ended = shell("COMMAND --help > /dev/full")
    assert (ended.returncode, "No space left" in ended.stderr) == (2, True)


def test_a_deleted_working_directory_is_named(tmp_path: Path) -> None:
    ended = shell(
        f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; COMMAND front x"
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "The working directory must exist" in ended.stderr


def test_words_that_the_locale_cannot_read_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", os.fsdecode(b"runs/\xfcml")]) == 2
    assert "PYTHONUTF8=1" in capsys.readouterr().err


def test_the_ascii_locale_refuses_umlauts() -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = shell("COMMAND resume runs/ümlaut", **ascii_only)
    assert (ended.returncode, "PYTHONUTF8=1" in ended.stderr) == (2, True)
