"""A repeat is trained once: a later call resumes it, or reads its points."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage
from rich.console import Console

from generalist_core.config.mixing import GLOBAL, Released
from generalist_core.training.evaluator import OperatingPoint
from search.config import Resources, SweepConfig
from search.files import read_sealed_json
from search.folders import SweepFolder, TrialFolder
from search.front.repeats import spreads
from search.running.local import map_locally
from search.running.repeats import RepeatJob, repeat_front, run_repeat
from search.running.trial import with_release_ratio
from search.study.folder import Sweep
from search.study.ledger import Ledger
from spaces import SPACES
from tests.helpers.ledgers import COST
from tests.helpers.problems import tiny_dataset, two_experts
from tests.helpers.tiny import begin, finish, tiny_config


def test_a_repeat_is_resumed_and_read_when_it_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = read_sealed_json(finish(begin(tmp_path / "alone")).files.points)["points"]
    files = TrialFolder(tmp_path / "0000-1")
    job = RepeatJob(trial="0000", repeat=1, folder=files.root, config=two_experts())
    begin(files.root).advance()
    assert run_repeat(job, threads=1, data=tiny_dataset(), model=None) == expected
    assert not files.checkpoint.exists()
    written = files.metrics.read_bytes()
    assert written.count(b"\n") == two_experts().epochs
    assert run_repeat(job, threads=1, data=tiny_dataset(), model=None) == expected
    assert files.metrics.read_bytes() == written
    files.points.write_bytes(files.points.read_bytes().replace(b"0.", b"1.", 1))
    assert run_repeat(job, threads=1, data=tiny_dataset(), model=None) == expected
    assert "points.json must be as it was written" in caplog.text
    assert read_sealed_json(files.points)["points"] == expected


def test_a_folder_that_cannot_be_used_is_no_failure_of_a_repeat(tmp_path: Path) -> None:
    """Found by the drill: it counted as one, and `repeats.json` was replaced by an empty one."""
    (tmp_path / "repeats").write_text("no folder")
    folder = tmp_path / "repeats" / "0000-1"
    job = RepeatJob(trial="0000", repeat=1, folder=folder, config=two_experts())
    with pytest.raises(NotADirectoryError):
        list(map_locally(run_repeat, [job], threads=1, data=tiny_dataset(), model=None))


@pytest.mark.parametrize("on_front", [(GLOBAL,), (GLOBAL, 1.0), (0.0, 1.0)])
def test_what_is_on_the_front_is_repeated_and_nothing_else(
    tmp_path: Path, on_front: tuple[Released, ...]
) -> None:
    """The other mixtures and the refinements of a repeat are not among its rows."""
    base = tiny_config()
    ledger = Ledger(InMemoryStorage(), ("natural", "robust"))
    proposal = ledger.ask(SPACES["smoke"], base)
    ratios = (
        *with_release_ratio(proposal.config, proposal.mixing_ratio).evaluation.release_ratios,
    )
    front = {released: 0.5 + 0.1 * n for n, released in enumerate(on_front)}
    points = [
        OperatingPoint(
            mixing_ratio=released,
            accuracies={
                "natural": front.get(released, 0.1),
                "robust": 1 - front.get(released, 0.9),
            },
            n_images=50,
            epoch=2,
        )
        for released in (*ratios, GLOBAL)
    ]
    ledger.tell_released(proposal.trial, points, COST)
    config = SweepConfig(
        base=base, space="smoke", trials=1, repeats=2, resources=Resources(local=True)
    )
    repeat_front(Sweep(folder=tmp_path, config=config, ledger=ledger), Console(quiet=True))
    rows = read_sealed_json(SweepFolder(tmp_path).repeats)["repeats"]
    found = [{r["mixing_ratio"] for r in rows if r["repeat"] == repeat} for repeat in (1, 2)]
    assert found == [set(on_front)] * 2
    assert len(rows) == 2 * len(on_front)
    spread = spreads(tmp_path, ledger.results.front())
    assert {len(names["natural"]["values"]) for names in spread.values()} == {2}
    assert len(spread) == len(on_front)
