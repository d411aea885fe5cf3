"""A file describes a sweep as the command line does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist_core.config.codec import replace_at, to_dict
from generalist_core.config.presets import short
from generalist_core.fingerprints import images_digest
from generalist_core.validation import InvalidConfigError
from search.cli.main import main, program
from search.cli.sweep_file import file_text, read_document
from search.config import Floor, Growing, Limits, Resources, SweepConfig, WarmupConfig
from search.running.trial import cached_dataset
from tests.helpers.command_line import TINY
from tests.helpers.tiny import tiny_config


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """The request that the arguments of `sweep` describe, or the error."""

    def request_of(*arguments: str) -> dict[str, Any]:
        code = main(["sweep", *arguments, "--print-file"])
        captured = capsys.readouterr()
        if code != 0:
            raise AssertionError(captured.err)
        (tmp_path / "printed.yaml").write_text(captured.out)
        request: dict[str, Any] = read_document(tmp_path / "printed.yaml")["request"]
        return request

    return request_of


def written(folder: Path, text: str, name: str = "sweep.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


EVERY = """\
data: digits
preset: paper
space: mixing
trials: 7
budget: 5e9
epochs: 30
epsilon: 8/255
search-seed: 3
sampler: random
at_least: [natural=0.5, robust=0.2]
set:
  experts.robust.optimizer.lr: 0.05
  sync.start_epoch: 5
early-stopping: false
sharing: false
max-retries: 1
cpus-per-trial: 2
workers: 3
deterministic: true
download: null
"""

TYPED = """--data digits --preset paper --space mixing --trials 7 --budget 5e9 --epochs 30
--epsilon 8/255 --search-seed 3 --sampler random --at-least natural=0.5 --at-least robust=0.2
--set experts.robust.optimizer.lr=0.05 --set sync.start_epoch=5 --no-early-stopping --no-sharing
--max-retries 1 --cpus-per-trial 2 --workers 3 --deterministic"""


def test_options_in_a_file_are_those_of_the_command_line(printed: Any, tmp_path: Path) -> None:
    assert printed("--file", written(tmp_path, EVERY)) == printed(*TYPED.split())
    as_json = json.dumps({"trials": 7, "set": "seed=4", "local": True})
    file = written(tmp_path, as_json, "sweep.json")
    assert printed("--file", file) == printed("--trials", "7", "--set", "seed=4", "--local")


def test_the_command_line_wins_over_the_file(printed: Any, tmp_path: Path) -> None:
    file = written(tmp_path, EVERY)
    made = printed("--trials", "9", "--early-stopping", "--sharing", "--file", file)
    assert (made["trials"], made["shares_warmups"]) == (9, True)
    assert made["early_stopping"]["eta"] == 3.0
    assert printed("--file", file, "--eta", "4", "--early-stopping")["early_stopping"]["eta"] == 4.0
    assert printed("--file", file, "--no-deterministic")["round_size"] is None


REQUEST = SweepConfig(
    base=replace_at(short(), "experts.robust.optimizer.lr", 1e-5),
    space="mixing",
    trials=None,
    budget=1e9,
    at_least=(Floor(objective="natural", accuracy=0.5),),
    warmups=WarmupConfig(folder="/no: 1e5"),
    growing=Growing(n_first=2),
    limits=Limits(may_accumulate=True),
    resources=Resources(workers=2, gpus_per_trial=0.5),
    early_stopping=None,
    warm_start=("null", "1e5", "no"),
    round_size=4,
)


def test_a_printed_file_describes_the_same_request(printed: Any, tmp_path: Path) -> None:
    first = printed("--file", written(tmp_path, file_text(REQUEST)))
    expected = to_dict(REQUEST)
    del expected["storage"]
    expected["base"]["data"]["root"] = first["base"]["data"]["root"]  # made absolute
    assert first == expected
    changed = printed("--file", str(tmp_path / "sweep.yaml"), "--budget", "2e9", "--seed", "5")
    assert changed == {**expected, "budget": 2e9, "base": {**expected["base"], "seed": 5}}


def test_a_budget_leaves_the_trials_of_a_request(printed: Any, tmp_path: Path) -> None:
    file = written(tmp_path, file_text(dataclasses.replace(REQUEST, trials=12)))
    assert printed("--file", file, "--budget", "2e9")["trials"] == 12
    assert printed("--data", "digits", "--budget", "2e9")["trials"] is None


def test_a_storage_and_its_password_are_not_printed() -> None:
    request = dataclasses.replace(REQUEST, storage="mysql://me:secret@host/db")
    assert "secret" not in file_text(request)
    assert file_text(request) == file_text(REQUEST)


def test_the_sweep_json_of_a_sweep_is_a_file_of_it(
    printed: Any, two_trials: Path, tmp_path: Path
) -> None:
    stored = json.loads((two_trials / "sweep.json").read_text())
    made = printed("--file", str(two_trials / "sweep.json"))
    expected = stored["request"]
    assert made.pop("base")["seed"] == expected["base"]["seed"]
    assert made == {name: expected[name] for name in made}
    for change, message in {
        "format": "must be of format 2, but is of format 1",
        "custom": "passed from Python",
        "request": "must hold a valid request, but:",
    }.items():
        other = {"format": 1, "custom": {"data": "a", "model": False}, "request": {"base": 1}}
        file = written(tmp_path, json.dumps({**stored, change: other[change]}), "sweep.json")
        with pytest.raises(AssertionError, match=message):
            printed("--file", file)
    with pytest.raises(AssertionError, match="must be given without `--preset`"):
        printed("--file", str(two_trials / "sweep.json"), "--preset", "paper")


def test_another_model_takes_the_place_of_one_whose_file_has_moved(
    printed: Any, tmp_path: Path
) -> None:
    for name in ("old.py", "new.py"):
        (tmp_path / name).write_text(f"def build(n, shape): ...  # {name}\n")
    first = printed("--model", f"{tmp_path}/old.py:build", "--trials", "1")["base"]["model"]
    file = str((tmp_path / "printed.yaml").rename(tmp_path / "kept.yaml"))
    (tmp_path / "old.py").unlink()
    with pytest.raises(AssertionError, match=r"old\.py"):
        printed("--file", file)
    second = printed("--file", file, "--model", f"{tmp_path}/new.py:build")["base"]["model"]
    assert second["name"] == f"{tmp_path}/new.py:build"
    assert second["digest"] != first["digest"]


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "trails: 3": "names 'trails'. Did you mean trials?",
        "requests: {}": "Did you mean request?",
        "dry-run: true": "must name options of the command",
        "help: true": "must name options of the command",
        "1: 3": "must name options of the command",
        "- trials": "must hold options by their names, but holds ['trials']",
        "": "must hold options by their names, but holds None",
        "trials: 3\ntrials: 4": "a key twice",
        "? [a]\n: 1": "a key twice, or none",
        "trials: [3": "must be YAML or JSON",
        "trials: 8.5": "'8.5' is not a valid integer",
        "trials: true": "`trials` in",
        "trials: [1]": "`trials` in",
        "at-least: natural": "must be OBJECTIVE=X, but got 'natural'",
        "local: 1": "`local` in",
        "local: no": "must be true or false, but got 'no'",
        "set: {seed: {a: 1}}": "must be of type int",
        "data: 2024-05-01": "2024-05-01",
        "config: 12:30": "12:30 must exist",
        "[" * 5000: "must be YAML or JSON",
        "trials: !!python/name:os.system": "must be YAML or JSON",
        "trials: !!binary aGk=": "must be YAML or JSON, but: Object of type bytes",
        "trials: !!timestamp 2001-01-01": "must be YAML or JSON, but: Object of type date",
        "set: &a {seed: *a}": "must be YAML or JSON, but: Circular reference",
        "request: {}\ncustom: 5": "passed from Python",
    }.items(),
)
def test_a_file_that_cannot_be_used_is_refused(
    printed: Any, tmp_path: Path, text: str, message: str
) -> None:
    arguments = () if "data" in text else ("--data", "digits")
    run = (*arguments, "--file", written(tmp_path, text), *TINY)
    if text.startswith("data"):  # a name, and no date: nothing is loaded here
        assert message in printed(*run)["base"]["data"]["name"]
        return
    with pytest.raises(AssertionError) as error:
        printed(*run)
    assert message in str(error.value)
    assert str(error.value).count("\n") == 1


def test_a_file_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--file", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml must exist" in capsys.readouterr().err
    assert main(["sweep", "--data", "digits"]) == 2
    assert "`--out` must be given" in capsys.readouterr().err


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff")),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text("abc0.-"), inside),
)  # fmt: skip


@given(VALUES)
def test_what_json_can_hold_is_read_again(tmp_path_factory: Any, value: Any) -> None:
    import yaml

    from search.cli.sweep_file import _Dumper

    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.dump({"value": value}, Dumper=_Dumper, allow_unicode=True), "utf-8")
    assert read_document(path) == {"value": value}


def test_every_option_of_a_sweep_can_stand_in_a_file(tmp_path: Path) -> None:
    """By its own name: no option has a name that the request's file uses for something else."""
    flags = {p.opts[0].removeprefix("--") for p in program.commands["sweep"].params}
    assert not flags & {"request", "format", "study", "custom", "pins", "environment"}


def test_a_dry_run_begins_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, store = tmp_path / "out", tmp_path / "store"
    run = ["sweep", *TINY, "--space", "mixing", "--trials", "2", "--local", "--dry-run"]
    run += ["--warmups", str(store), "--storage", f"sqlite:///{tmp_path}/a.db"]
    assert main([*run, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "sync.every_epochs" in shown
    assert "Nothing was begun." in shown
    assert list(tmp_path.iterdir()) == []
    assert main([*run, "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["request"]["space"] == "mixing"
    assert document["ranges"]["sync.every_epochs"]["low"] == 1
    assert main([*run, "--out", str(out), "--set", "experts.robust.optimizer.lr=-1"]) == 2


@pytest.mark.parametrize(
    ("options", "warns"),
    [
        (["--space", "lineages", "--epochs", "2"], True),
        (["--epochs", "2"], True),
        (["--space", "lineages"], False),
        (["--space", "mixing", "--epochs", "2"], False),
        (["--space", "examples/custom_space.py:space", "--epochs", "4"], False),
    ],
)
def test_epochs_that_the_space_searches_are_warned_of(
    options: list[str], warns: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = ["--n-train", "100", "--n-validation", "50", "--width", "2", "--local", "--dry-run"]
    assert main(["sweep", *small, *options, "--out", str(tmp_path / "out")]) == 0
    assert ("--epochs does not bound it" in caplog.text) is warns


def test_a_document_is_no_yaml_of_other_types(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"trials": 1, "trials": 2}')
    with pytest.raises(InvalidConfigError, match="more than once"):
        read_document(file)


def test_other_images_than_those_of_the_sweep_are_told(
    two_trials: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = json.loads((two_trials / "sweep.json").read_text())
    data = cached_dataset(tiny_config().data)
    for digest, n_warnings in ((images_digest(data.train, data.validation), 0), ("other", 1)):
        stored["pins"] = {"images": digest}
        file = written(tmp_path, json.dumps(stored), "sweep.json")
        caplog.clear()
        arguments = ["sweep", "--file", file, "--local", "--trials", "1", "--quiet"]
        assert main([*arguments, "--out", str(tmp_path / digest)]) == 0
        told = [record for record in caplog.records if "are not those" in record.message]
        assert len(told) == n_warnings
