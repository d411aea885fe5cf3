"""Law 2 for a trial in its folder: killed at any time, it resumes and reaches the same points."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from generalist_core.config.codec import replace_at
from generalist_core.validation import InvalidConfigError
from search.errors import SweepFolderError
from search.files import load_tensors, read_json, sealed_line
from search.folders import TrialFolder
from search.running.trial import TrialRun, read_metrics
from tests.helpers.damages import emptied, flipped, torn
from tests.helpers.problems import same_bits, tiny_dataset, two_experts
from tests.helpers.tiny import begin, finish

CONFIG = two_experts()
N_EPOCHS = CONFIG.epochs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrialRun:
    """An undisturbed trial, with a checkpoint for each number of epochs."""
    folder = tmp_path_factory.mktemp("whole")
    trial = begin(folder / "0000")
    while not trial.is_done:
        trial.advance()
        trial.save_checkpoint()
        shutil.copytree(trial.folder, folder / str(trial.trainer.epoch) / "0000")
    trial.release()
    return trial


def killed(whole: TrialRun, n_kept: int, n_trained: int, place: Path) -> Path:
    """The folder of a trial killed after `n_trained` epochs, with a checkpoint after `n_kept`."""
    folder = place / "0000"
    shutil.copytree(whole.folder.parent / str(n_trained) / "0000", folder)
    TrialFolder(folder).checkpoint.unlink()
    if n_kept > 0:
        shutil.copy(whole.folder.parent / str(n_kept) / "0000" / "checkpoint.pt", folder)
    return folder


def same_end(trial: TrialRun, whole: TrialRun) -> bool:
    """Whether points, averages and metrics are the same, except for lost cost and time."""
    points, averages = "points.json", "averages.pt"
    return (
        read_json(trial.folder / points) == read_json(whole.folder / points)
        and same_bits(load_tensors(trial.folder / averages), load_tensors(whole.folder / averages))
        and [undisturbed(line) for line in read_metrics(trial.folder)]
        == [undisturbed(line) for line in read_metrics(whole.folder)]
    )


def undisturbed(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of an epoch without the time and the cost that was lost."""
    forward_images = metrics["forward_images"] - metrics["lost_forward_images"]
    others = ("seconds", "lost_forward_images")
    return {k: v for k, v in metrics.items() if k not in others} | {
        "forward_images": forward_images
    }


KILLS = [(kept, done) for done in range(1, N_EPOCHS + 1) for kept in range(done + 1)]


@pytest.mark.slow
@pytest.mark.parametrize(("n_kept", "n_trained"), KILLS)
def test_a_killed_trial_continues_to_the_same_end(
    n_kept: int, n_trained: int, whole: TrialRun, tmp_path: Path
) -> None:
    """And what it trains again is counted as lost."""
    again = begin(killed(whole, n_kept, n_trained, tmp_path))
    assert again.trainer.epoch == n_kept
    costs = [0.0, *(line["forward_images"] for line in read_metrics(whole.folder))]
    assert again.training.lost_forward_images == costs[n_trained] - costs[n_kept]
    finish(again)
    assert same_end(again, whole)
    assert (
        again.training.cost["forward_images"]
        == whole.training.cost["forward_images"] + again.training.lost_forward_images
    )
    assert [line["epoch"] for line in read_metrics(again.folder)] == list(range(1, N_EPOCHS + 1))


def test_what_is_lost_adds_up(whole: TrialRun, tmp_path: Path) -> None:
    """Killed three times after its second epoch, each time with a checkpoint of the first."""
    costs = [line["forward_images"] for line in read_metrics(whole.folder)]
    folder = killed(whole, 1, 2, tmp_path)
    for n in range(1, 4):
        trial = begin(folder)
        assert trial.training.lost_forward_images == n * (costs[1] - costs[0])
        trial.save_checkpoint()
        checkpoint = TrialFolder(folder).checkpoint.read_bytes()
        trial.advance()
        TrialFolder(folder).checkpoint.write_bytes(checkpoint)
    finish(trial)
    assert same_end(trial, whole)


@pytest.mark.parametrize("damage", [torn, flipped, emptied])
def test_with_a_damaged_checkpoint_a_trial_starts_anew(
    damage: Callable[[Path], None],
    whole: TrialRun,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = killed(whole, 3, 3, tmp_path)
    damage(TrialFolder(folder).checkpoint)
    again = begin(folder)
    assert again.trainer.epoch == 0
    assert "checkpoint.pt must be as it was written" in caplog.text
    assert again.training.lost_forward_images == read_metrics(whole.folder)[2]["forward_images"]
    assert (folder / "checkpoint.damaged").is_file()
    assert same_end(finish(again), whole)


def test_the_checkpoint_of_another_trial_is_put_aside(whole: TrialRun, tmp_path: Path) -> None:
    other = tmp_path / "0001"
    shutil.copytree(killed(whole, 3, 3, tmp_path), other)
    assert begin(other).trainer.epoch == 0


@pytest.mark.parametrize("half", ['{"epoch": 3, "forw', '{"epoch": 3}', "\x00\x00"])
def test_a_partial_last_line_is_ignored(half: str, whole: TrialRun, tmp_path: Path) -> None:
    folder = killed(whole, 2, 2, tmp_path)
    with TrialFolder(folder).metrics.open("a") as file:
        file.write(half)
    assert len(read_metrics(folder)) == 2
    assert same_end(finish(begin(folder)), whole)


def test_a_damaged_line_in_the_middle_is_named(whole: TrialRun, tmp_path: Path) -> None:
    folder = killed(whole, 2, 2, tmp_path)
    lines = TrialFolder(folder).metrics.read_text().splitlines(keepends=True)
    TrialFolder(folder).metrics.write_text("".join([lines[0][5:], *lines[1:]]))
    with pytest.raises(SweepFolderError, match=r"Line 1 of .*metrics\.jsonl must be JSON"):
        begin(folder)


def again(lines: list[str]) -> list[str]:
    return [*lines, lines[-1]]


def swapped(lines: list[str]) -> list[str]:
    return lines[::-1]


@pytest.mark.parametrize("change", [again, swapped])
def test_epochs_of_metrics_grow(
    change: Callable[[list[str]], list[str]], whole: TrialRun, tmp_path: Path
) -> None:
    path = TrialFolder(killed(whole, 2, 2, tmp_path)).metrics
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    with pytest.raises(SweepFolderError, match=r"epochs in .*metrics\.jsonl must grow.*line [23]"):
        read_metrics(path.parent)


FOREIGN = [
    b"[1]",
    b"3",
    b"null",
    b"{}",
    b'{"epoch": 1}',
    b'{"epoch": NaN}',
    b"\xff\xfe",
    b"[" * 9999,
]


@pytest.mark.parametrize("line", FOREIGN)
def test_a_line_that_no_training_wrote_is_named(
    line: bytes, whole: TrialRun, tmp_path: Path
) -> None:
    path = TrialFolder(killed(whole, 2, 2, tmp_path)).metrics
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(SweepFolderError, match=r"Line 3 of .*metrics\.jsonl must be"):
        read_metrics(path.parent)


def test_a_loss_that_is_no_number_is_read(tmp_path: Path) -> None:
    line = {"epoch/natural": 1, "loss/natural": float("nan")}
    TrialFolder(tmp_path).metrics.write_text(sealed_line(line))
    assert str(read_metrics(tmp_path)) == str([line])


def test_metrics_that_vanished_are_missing_and_nothing_else(
    whole: TrialRun, tmp_path: Path
) -> None:
    folder = killed(whole, 2, 2, tmp_path)
    TrialFolder(folder).metrics.unlink()
    again = finish(begin(folder))
    assert [line["epoch"] for line in read_metrics(again.folder)] == [3, 4, 5]
    assert read_json(folder / "points.json") == read_json(whole.folder / "points.json")


@pytest.mark.slow
@pytest.mark.parametrize("n_attempts", range(1, 9))
@pytest.mark.parametrize("keeps", [True, False])
def test_with_shared_warm_ups_a_killed_trial_continues_too(
    keeps: bool, n_attempts: int, whole: TrialRun, tmp_path: Path
) -> None:
    """The warm-ups of two experts take four epochs; with three together seven in all."""
    folder, store = tmp_path / "0000", tmp_path / "store"
    trial = begin(folder, store=store)
    spent = 0
    for _ in range(min(n_attempts, 7)):
        spent = int(trial.advance()["forward_images"])
    if keeps:
        trial.save_checkpoint()
    else:
        TrialFolder(folder).checkpoint.unlink()
    again = finish(begin(folder, store=store))
    assert read_json(folder / "points.json") == read_json(whole.folder / "points.json")
    lines = read_metrics(folder)
    assert [line["epoch"] for line in lines][-3:] == [3, 4, 5]
    assert len({json.dumps(line) for line in lines}) == len(lines)
    assert again.training.lost_forward_images == (0 if keeps else spent)
    assert again.training.cost["forward_images"] == again.trainer.forward_images + (
        0 if keeps else spent
    )


def test_the_folder_of_another_trial_is_refused(whole: TrialRun, tmp_path: Path) -> None:
    folder = killed(whole, 2, 2, tmp_path)
    other = replace_at(CONFIG, "experts.natural.optimizer.lr", 0.2)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SweepFolderError, match="must belong to this trial, but holds another"):
        begin(folder, config=other)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 9999])
def test_a_damaged_configuration_is_written_again(
    content: bytes, whole: TrialRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = killed(whole, 2, 2, tmp_path)
    TrialFolder(folder).config.write_bytes(content)
    assert same_end(finish(begin(folder)), whole)
    assert "config.json is damaged, and is written again" in caplog.text


def test_accumulations_other_than_doubled_ones_are_of_another_trial(tmp_path: Path) -> None:
    begin(tmp_path / "0000", config=replace(CONFIG, n_accumulations=3)).advance()
    with pytest.raises(SweepFolderError, match=r"holds another: config\.json differs"):
        begin(tmp_path / "0000")


def test_a_trial_that_began_to_save_memory_continues_to(tmp_path: Path) -> None:
    saving = replace(CONFIG, n_accumulations=2)
    begin(tmp_path / "0000", config=saving).advance()
    again = begin(tmp_path / "0000")
    assert again.trainer.config == saving
    assert again.trainer.epoch == 1


def test_a_trial_does_not_go_on_with_other_images(whole: TrialRun, tmp_path: Path) -> None:
    folder, data = killed(whole, 1, 2, tmp_path), tiny_dataset()
    flipped = replace(data.train, images=data.train.images.flip(0))
    before = (folder / "checkpoint.pt").read_bytes()
    with pytest.raises(InvalidConfigError, match="these train and validation images"):
        TrialRun(folder, CONFIG, replace(data, train=flipped))
    assert (folder / "checkpoint.pt").read_bytes() == before


def test_a_process_that_was_overtaken_writes_no_more_metrics(tmp_path: Path) -> None:
    """It may have slept; the one that resumed the trial has replaced the file."""
    first = begin(tmp_path / "0000")
    first.advance()
    second = begin(tmp_path / "0000")
    with pytest.raises(SweepFolderError, match=r"metrics.jsonl must be written by one process"):
        first.advance()
    second.advance()
    assert [line["epoch"] for line in read_metrics(second.folder)] == [1, 2]
