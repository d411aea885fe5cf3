"""The request in the study: what was changed in `sweep.json` is named, whatever it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from search.config import Resources, SweepConfig
from search.errors import SweepFolderError
from search.files import read_json, write_json
from search.folders import SweepFolder
from search.study.folder import (
    custom_parts,
    open_ledger,
    open_sweep,
    rewrite_request,
    write_request,
)
from search.study.request import CHANGEABLE, is_recorded, record
from search.study.storage import place_of

CONFIG = SweepConfig(base=short())
CUSTOM = custom_parts(None, None)


@pytest.fixture(params=["journal", "sqlite"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A sweep that has just begun, and its request."""
    storage = f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else None
    config = replace(CONFIG, storage=storage)
    write_request(tmp_path, config, "name", CUSTOM)
    open_ledger(tmp_path, config, "name", is_new=True)
    return tmp_path


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    path = SweepFolder(folder).request
    document = read_json(path)
    change(document)
    write_json(path, document)


def of_request(**changes: Any) -> Callable[[Any], object]:
    return lambda document: document["request"].update(changes)


def other_epsilon(document: Any) -> None:
    document["request"]["base"]["experts"][1]["attack"]["epsilon"] = 0.5


def a_third_expert(document: Any) -> None:
    experts = document["request"]["base"]["experts"]
    experts.append({**experts[1], "name": "third"})


EDITS: dict[str, tuple[Callable[[Any], object], str]] = {
    "seed": (of_request(seed=7), "but seed was 0 and is 7. Put"),
    "space": (of_request(space="smoke"), "but space was 'lineages' and is 'smoke'. Put"),
    "epochs": (
        lambda document: document["request"]["base"].update(epochs=99),
        r"but base\.epochs was \d+ and is 99. Put",
    ),
    "epsilon": (
        other_epsilon,
        r"but base\.experts\.robust\.attack\.epsilon was .* and is 0\.5. Put",
    ),
    "rule": (of_request(early_stopping=None), "but early_stopping was {'eta': 3.0.* and is None"),
    "custom": (
        lambda document: document.update(custom={"data": None, "model": True}),
        r"but custom\.model was False and is True. Put",
    ),
    "pins": (
        lambda document: document.update(pins={"space": "1234"}),
        r"but pins\.space was None and is '1234'. Put",
    ),
    "several": (
        of_request(seed=7, trials=9),
        "but trials was 20 and is 9; seed was 0 and is 7. Put",
    ),
}


@pytest.mark.parametrize(("change", "message"), EDITS.values(), ids=EDITS)
def test_a_changed_request_is_refused(
    change: Callable[[Any], object], message: str, folder: Path
) -> None:
    edit(folder, change)
    for accept in (False, True):
        with pytest.raises(SweepFolderError, match=message) as error:
            open_sweep(folder, accept=accept)
        assert "Put back what was, or begin a new sweep." in str(error.value)


def test_every_setting_of_an_expert_counts(folder: Path) -> None:
    edit(folder, lambda document: document["request"]["base"]["experts"][0].update(name="first"))
    with pytest.raises(SweepFolderError, match=r"base\.experts\.natural was .* and is None; "):
        open_sweep(folder)


CHANGED = {
    "trials": 40,
    "budget": 1e6,
    "time_budget_s": 10.0,
    "resources": {"workers": 2},
    "limits": {"max_retries": 0},
    "stop_when": {"min_growth": 0.1, "within_cost": 10.0},
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_may_change_can_be_accepted(name: str, folder: Path) -> None:
    assert set(CHANGED) == set(CHANGEABLE)
    edit(folder, of_request(**{name: CHANGED[name]}))
    with pytest.raises(SweepFolderError, match=f"{name}.*or accept it: generalist-search resume"):
        open_sweep(folder)
    assert getattr(open_sweep(folder, accept=True).config, name) != getattr(CONFIG, name)


def test_the_same_request_in_another_form_is_the_same(folder: Path) -> None:
    path = SweepFolder(folder).request
    document = read_json(path)
    document["note"] = "an unknown key"
    document["environment"] = {}
    document["request"]["base"]["experts"][1]["loss"] = dict(
        reversed(document["request"]["base"]["experts"][1]["loss"].items())
    )
    document["request"]["at_least"] = []
    del document["request"]["repeats"]
    path.write_text(json.dumps(document, indent=7, sort_keys=True))
    open_sweep(folder)


def test_the_name_of_the_study_counts(folder: Path) -> None:
    place = place_of(open_sweep(folder).config.storage, SweepFolder(folder).journal)
    edit(folder, lambda document: document.update(study="other"))
    with pytest.raises(ValueError, match=f"'other' of sweep.json must be in {place}"):
        open_sweep(folder)


def test_a_password_is_not_recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_sweep(folder).ledger.study
    (recorded,) = study.user_attrs["request"]
    assert "storage" not in recorded
    url = "postgresql://me:secret@host/studies"
    monkeypatch.setattr("sys.orig_argv", ["sweep", f"--storage={url}"])
    config = replace(CONFIG, storage=url)
    assert "secret" not in repr(config)
    write_request(folder, config, "x", custom_parts(None, None))
    stored = read_json(SweepFolder(folder).request)
    assert stored["request"]["storage"] == url
    assert stored["environment"]["command"] == "sweep '--storage=postgresql://me:***@host/studies'"


def test_after_a_crash_within_a_rewrite_the_request_is_the_old_or_the_new(folder: Path) -> None:
    sweep = open_sweep(folder)
    study, config = sweep.ledger.study, replace(sweep.config, trials=40)
    document = read_json(SweepFolder(folder).request)
    new = {**document, "request": {**document["request"], "trials": 40}}
    record(study, new, will_be=True)
    assert open_sweep(folder).config.trials == 20
    write_json(SweepFolder(folder).request, new)
    assert open_sweep(folder).config.trials == 40
    assert not is_recorded(study, new)
    rewrite_request(folder, config, study, CUSTOM, {})
    assert is_recorded(study, new)
    assert open_sweep(folder).config == config


def test_a_request_is_rewritten_only_if_it_changes(folder: Path) -> None:
    sweep = open_sweep(folder)
    study, before = sweep.ledger.study, SweepFolder(folder).request.read_bytes()
    rewrite_request(folder, sweep.config, study, CUSTOM, {})
    assert SweepFolder(folder).request.read_bytes() == before
    config = replace(sweep.config, resources=Resources(workers=2))
    rewrite_request(folder, config, study, CUSTOM, {})
    assert open_sweep(folder).config == config
    without = replace(config, base=replace_at(config.base, "channels_last", False))
    rewrite_request(folder, without, study, CUSTOM, {})
    assert open_sweep(folder).config == without


def test_a_study_without_a_record_is_held_to_none_until_it_is_resumed(tmp_path: Path) -> None:
    write_request(tmp_path, CONFIG, "name", CUSTOM)
    study = open_ledger(tmp_path, CONFIG, "name", is_new=True).study
    study.set_user_attr("request", [])
    edit(tmp_path, of_request(seed=7))
    sweep = open_sweep(tmp_path)
    rewrite_request(tmp_path, sweep.config, study, CUSTOM, {})
    edit(tmp_path, of_request(seed=8))
    with pytest.raises(SweepFolderError, match="seed was 7 and is 8"):
        open_sweep(tmp_path)


def test_a_record_of_an_earlier_version_lacks_a_field_that_has_its_default(folder: Path) -> None:
    study = open_sweep(folder).ledger.study
    (recorded,) = study.user_attrs["request"]
    assert recorded["base"]["evaluation"].pop("objectives") is None
    study.set_user_attr("request", [recorded])
    edit(folder, lambda document: document["request"]["base"]["evaluation"].pop("objectives"))
    open_sweep(folder)
    assert is_recorded(study, read_json(SweepFolder(folder).request))
    edit(folder, other_epsilon)
    with pytest.raises(SweepFolderError, match="epsilon was"):
        open_sweep(folder)
