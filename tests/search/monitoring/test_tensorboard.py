"""TensorBoard on the files of a simulated search: the data that its pages are made of."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from search.monitoring.tensorboard import COST_UNIT, Monitor
from search.study.ledger import Ledger
from spaces import SPACES
from spaces.parameters import parameters_of_space
from tests.helpers.browser import CHROMIUM, browsing
from tests.helpers.serving import ask, serving
from tests.helpers.watched import BASE, new_ledger, refusing, watch

SPACE = SPACES["full"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ledger]:
    folder, ledger = tmp_path_factory.mktemp("tensorboard"), new_ledger(SPACE)
    monitor = Monitor(
        folder, parameters_of_space(SPACE, BASE), ledger.results.objectives, study="small"
    )
    watch(monitor, ledger, SPACE)
    return folder, ledger


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def test_a_trial_has_its_curves_its_objectives_and_its_release(
    watched: tuple[Path, Ledger],
) -> None:
    folder, ledger = watched
    trial = ledger.results.front().points[0].trial
    events = read(folder / trial)
    shown = set(events.Tags()["scalars"])
    groups = {tag.split("/")[0] for tag in shown}
    assert groups == {"accuracy", "loss", "lr", "weight", "run", "objective"}
    assert {"run/synced", "run/seconds", "run/forward_images", "accuracy/global/robust"} <= shown
    assert events.Tags()["images"] == ["release"]
    config = next(p.config for p in ledger.results.proposals() if p.trial == trial)
    for event in events.Scalars("run/synced"):
        assert event.value == float(config.sync.is_sync(event.step - 1))
    values = [events.Scalars(f"objective/{name}")[-1].value for name in ledger.results.objectives]
    told = next(t for t in ledger.results.ended() if t.user_attrs["trial"] == trial)
    assert values == pytest.approx(told.values)


def test_the_sweep_is_shown_by_its_cost(watched: tuple[Path, Ledger]) -> None:
    folder, ledger = watched
    events, history = read(folder / "sweep"), ledger.results.history()
    curve = [(e.step, pytest.approx(e.value)) for e in events.Scalars("sweep/hypervolume")]
    assert curve == [(round(h.forward_images / COST_UNIT), h.hypervolume) for h in history]
    counts = ledger.results.counts()
    assert events.Scalars("sweep/trials/stopped_early")[-1].value == counts.stopped_early > 0
    assert events.Scalars("sweep/front_size")[-1].value == len(ledger.results.front().points)
    assert events.Images("front")[-1].step == curve[-1][0]


def test_trials_of_equal_number_of_two_sweeps_have_different_names(tmp_path: Path) -> None:
    names = set()
    for study in ("a-1", "a-2"):
        ledger = new_ledger(SPACES["smoke"])
        monitor = Monitor(tmp_path / study, {}, ledger.results.objectives, study=study)
        watch(monitor, ledger, SPACES["smoke"], n_trials=1)
        tag = metadata.SESSION_START_INFO_TAG
        content = read(tmp_path / study / "0000").SummaryMetadata(tag).plugin_data.content
        names.add(metadata.parse_session_start_info_plugin_data(content).group_name)
    assert names == {"a-1/0000", "a-2/0000"}


def test_an_error_in_a_picture_is_raised_where_a_sweep_can_log_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is drawn in another thread."""

    def fail(_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("search.monitoring.tensorboard.release_plot", fail)
    ledger = new_ledger(SPACES["smoke"])
    with pytest.raises(ZeroDivisionError, match="planted"):
        watch(
            Monitor(tmp_path, {}, ledger.results.objectives, study="small"),
            ledger,
            SPACES["smoke"],
            n_trials=1,
        )


def test_failures_are_counted_by_kind_though_those_trials_never_began(tmp_path: Path) -> None:
    ledger = new_ledger(refusing)
    watch(Monitor(tmp_path, {}, ledger.results.objectives, study="small"), ledger, refusing)
    kinds = ledger.results.failure_kinds()
    assert kinds["invalid"] > 0
    assert read(tmp_path / "sweep").Scalars("sweep/failed/invalid")[-1].value == kinds["invalid"]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        "sweep",
        *(p.trial for p in ledger.results.proposals() if p.trial not in ledger.results.failures()),
    }


# The pages, as TensorBoard itself reads the files


@pytest.fixture(scope="module")
def address(watched: tuple[Path, Ledger]) -> Iterator[str]:
    yield from tensorboard(watched[0])


def tensorboard(folder: Path) -> Iterator[str]:
    """A TensorBoard over a folder."""
    yield from serving(sys.executable, "-m", "tensorboard.main", "--logdir", str(folder))


def session_groups(address: str, n: int) -> dict[str, Any]:
    """The rows of the HParams page by their names, once all are read."""
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    url = f"{address}/data/plugin/hparams/session_groups"
    body = {"allowedStatuses": statuses, "colParams": [], "startIndex": 0, "sliceSize": 100}
    for _ in range(60):
        document = ask(url, experimentName="", **body)
        if len(document["sessionGroups"]) >= n:
            break
        time.sleep(0.5)
    return {group["name"]: group for group in document["sessionGroups"]}


@pytest.mark.slow
def test_hparams_has_every_parameter_and_both_objectives(
    watched: tuple[Path, Ledger], address: str
) -> None:
    ledger = watched[1]
    rows = session_groups(address, ledger.results.n_asked)
    experiment = ask(f"{address}/data/plugin/hparams/experiment", experimentName="")
    columns = {info["name"] for info in experiment["hparamInfos"]}
    assert columns == parameters_of_space(SPACE, BASE).keys()
    metrics = [info["displayName"] for info in experiment["metricInfos"]]
    assert metrics == ["natural", "robust", "curve"]
    assert rows.keys() == {f"small/{proposal.trial}" for proposal in ledger.results.proposals()}
    conditional = set()
    for record in ledger.results.records():
        row = rows[f"small/{record.trial}"]
        assert row["hparams"] == dict(record.params)
        conditional |= columns - row["hparams"].keys()
        tags = {metric["name"]["tag"] for metric in row["metricValues"]}
        whole = {"objective/natural", "objective/robust", "objective/curve"}
        assert tags == (whole if record.state == "completed" else set())
    assert len(conditional) > 20


@pytest.mark.slow
def test_scalars_and_images_have_every_run(watched: tuple[Path, Ledger], address: str) -> None:
    ledger = watched[1]
    session_groups(address, ledger.results.n_asked)
    scalars = ask(f"{address}/data/plugin/scalars/tags")
    images = ask(f"{address}/data/plugin/images/tags")
    completed = {r.trial for r in ledger.results.records() if r.state == "completed"}
    assert scalars.keys() == {"sweep", *(p.trial for p in ledger.results.proposals())}
    assert {run for run, tags in images.items() if "release" in tags} == completed
    assert "front" in images["sweep"]


@pytest.mark.slow
def test_an_unforeseen_parameter_becomes_a_column(tmp_path: Path) -> None:
    ledger = new_ledger(SPACES["smoke"])
    watch(
        Monitor(tmp_path, {}, ledger.results.objectives, study="small"),
        ledger,
        SPACES["smoke"],
        n_trials=2,
    )
    for address in tensorboard(tmp_path):
        session_groups(address, 2)
        experiment = ask(f"{address}/data/plugin/hparams/experiment", experimentName="")
        columns = {info["name"] for info in experiment["hparamInfos"]}
        assert columns == parameters_of_space(SPACES["smoke"], BASE).keys()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_pages_show_it_in_a_browser(
    watched: tuple[Path, Ledger], address: str, tmp_path: Path
) -> None:
    ledger = watched[1]
    session_groups(address, ledger.results.n_asked)
    trials = [f"small/{proposal.trial}" for proposal in ledger.results.proposals()]
    n_completed = ledger.results.counts().completed
    with browsing(tmp_path) as page:
        page.open(f"{address}/#hparams")
        page.wait_for(*parameters_of_space(SPACE, BASE), *trials, "natural", "robust")
        page.open(f"{address}/#images")
        page.wait_for("front", "release", n_images=min(n_completed, 3))
        page.open(f"{address}/?tagFilter=hypervolume&smoothing=0#timeseries")
        page.wait_for("sweep /hypervolume", f"{ledger.results.front().hypervolume:.4g}")
        completed = next(r.trial for r in ledger.results.records() if r.state == "completed")
        for tags, cards in {
            "accuracy": ["accuracy/global /natural", "accuracy/global /robust"],
            "loss|lr": ["loss /natural", "loss /robust", "lr /natural", "lr /robust"],
            "weight": ["weight /natural", "weight /robust"],
            "run": ["run /synced", "run /forward_images", "run /seconds"],
            "release": ["release"],
        }.items():
            page.open(f"{address}/?runFilter={completed}&tagFilter={tags}&smoothing=0#timeseries")
            page.wait_for(*cards, completed)
