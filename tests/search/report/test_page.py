"""The report: one page that loads nothing and holds all, whatever a sweep came to."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from generalist_core.config import Ratio, TrainConfig, as_weights
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.validation import InvalidConfigError
from search.api.verify import verified_document
from search.cli.main import main
from search.config import VerifyConfig
from search.files import write_json
from search.front.repeats import attainment
from search.report.contents import ReportContents, gather, without_passwords
from search.report.importance import FRONT, N_LEAST, best_of, importances, nearness
from search.report.page import report_html
from search.report.plots import write_plots
from search.report.published import read_reference
from search.study.failures import Failure
from search.study.ledger import Ledger
from search.study.records import Proposal
from search.study.samplers import build_samplers
from spaces import Trial, tune_float

CHROMIUM = shutil.which("chromium")
TWO, THREE = ("natural", "robust"), ("natural", "robust", "l2")
PLANTED, IDLE, RARE = "mixing.decay", "experts.natural.label_smoothing", "sync.start_epoch"
COST = {"forward_images": 1e6, "reused_forward_images": 0, "seconds": 60, "gpu_seconds": 0}


def space(trial: Trial, base: TrainConfig) -> TrainConfig:
    """The parameter that decides, one that does not, and one that half the trials have."""
    config = tune_float(trial, base, PLANTED, 0.9, 0.99)
    config = tune_float(trial, config, IDLE, 0.0, 0.2)
    if trial.suggest_categorical("sync.how", ["as-is", "later"]) == "later":
        config = replace_at(config, RARE, trial.suggest_int(RARE, 4, 8))
    return config


def accuracies(proposal: Proposal, ratio: Ratio, objectives: tuple[str, ...]) -> dict[str, float]:
    """Better with the planted parameter alone; the ratio trades natural for the others."""
    merit, weight = (proposal.params[PLANTED] - 0.9) / 0.09, as_weights(ratio, 2)[1]
    natural, others = 0.4 + 0.3 * merit + 0.2 * (1 - weight), 0.2 + 0.3 * merit + 0.2 * weight
    return {name: natural if name == "natural" else others for name in objectives}


def ledger_of(n: int, objectives: tuple[str, ...] = TWO) -> Ledger:
    """`n` completed trials, random in the space."""
    sampler = build_samplers("random", seed=1, n_startup=1)
    ledger = Ledger(InMemoryStorage(), objectives, sampler_of=sampler)
    for _ in range(n):
        proposal = ledger.ask(space, short())
        points = [
            OperatingPoint(
                mixing_ratio=r,
                accuracies=accuracies(proposal, r, objectives),
                n_images=500,
                epoch=16,
            )
            for r in dict.fromkeys((0.0, 0.5, 1.0, proposal.mixing_ratio))
        ]
        ledger.tell_released(proposal.trial, points, COST)
    return ledger


class Page(HTMLParser):
    """What a page would load, its figures, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.figures: dict[str, Any] = {}
        self.words: list[str] = []
        self._data: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        about = dict(attrs)
        places = [about.get(name) for name in ("src", "href", "srcset", "action", "data")]
        self.loads += [place for place in places if place and not place.startswith("#")]
        self._data = about["id"] if about.get("type") == "application/json" else None

    def handle_endtag(self, tag: str) -> None:
        self._data = None

    def handle_data(self, data: str) -> None:
        if self._data is not None:
            self.figures[self._data] = json.loads(data)
        elif self.lasttag != "script":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(folder: Path, ledger: Ledger, **changes: Any) -> Page:
    return Page(report_html(dataclasses.replace(gather(folder, ledger.results), **changes)))


def drawn(figure: Mapping[str, Any], *names: str) -> list[tuple[float, float]]:
    """The points of a figure's traces of these names."""
    traces = [trace for trace in figure["data"] if trace.get("name") in names]
    return [pair for trace in traces for pair in zip(trace["x"], trace["y"], strict=True)]


@pytest.mark.parametrize("objectives", [TWO, THREE])
@pytest.mark.parametrize("n_trials", [0, 1, 2, 25, pytest.param(260, marks=pytest.mark.slow)])
def test_the_page_loads_nothing_and_shows_every_point(
    tmp_path: Path, n_trials: int, objectives: tuple[str, ...]
) -> None:
    if n_trials == 260 and objectives == THREE:
        pytest.skip("as large with two")
    ledger = ledger_of(n_trials, objectives)
    page = page_of(tmp_path, ledger)
    assert page.loads == []
    if n_trials == 0:
        assert page.figures == {}
        return
    points = ledger.results.points()
    assert len(points) == 1040 or n_trials < 260
    found = drawn(page.figures["front"], "other points", "front (validation)")
    expected = [tuple(round(100 * p.accuracies[name], 4) for name in TWO) for p in points]
    assert sorted(found) == sorted(expected)
    axes = {axis["label"] for axis in page.figures["parallel"]["data"][0]["dimensions"]}
    assert {"mixing ratio", *(f"{name} (%)" for name in objectives)} <= axes
    assert all(len(a["values"]) == len(points) for a in _axes(page))
    assert page.figures["growth"]["data"][0]["y"][-1] == ledger.results.front().hypervolume
    assert page.figures["growth"]["data"][0]["x"][-1] == 1e6 * n_trials
    assert ("importance" in page.figures) == (n_trials >= N_LEAST)


def _axes(page: Page) -> list[dict[str, Any]]:
    dimensions: list[dict[str, Any]] = page.figures["parallel"]["data"][0]["dimensions"]
    return dimensions


def test_a_third_objective_is_the_colour_of_the_front(tmp_path: Path) -> None:
    ledger = ledger_of(3, THREE)
    page = page_of(tmp_path, ledger)
    (front,) = [t for t in page.figures["front"]["data"] if t["name"] == "front (validation)"]
    l2 = [100 * point.accuracies["l2"] for point in ledger.results.front().points]
    assert front["marker"]["color"] == pytest.approx(l2)
    assert "The colour is the l2 accuracy" in page.text


def test_what_is_conditional_stands_at_the_foot_of_its_axis(tmp_path: Path) -> None:
    ledger = ledger_of(12)
    params = {t.user_attrs["trial"]: t.params for t in ledger.results.ended()}
    (axis,) = [a for a in _axes(page_of(tmp_path, ledger)) if a["label"] == RARE]
    assert axis["ticktext"][0] == "not set"
    for point, height in zip(ledger.results.points(), axis["values"], strict=True):
        assert (height == axis["tickvals"][0]) == (RARE not in params[point.trial])


def test_failed_and_unfinished_trials_are_told(tmp_path: Path) -> None:
    ledger = ledger_of(0)
    for kind, reason in (("diverged", "loss is <b>nan</b>"), ("hang", "for 3600 s")):
        failure = Failure(kind=kind, reason=reason)  # type: ignore[arg-type]
        ledger.tell_failed(ledger.ask(space, short()).trial, failure)
    ledger.ask(space, short())
    page = page_of(tmp_path, ledger)
    assert "1 diverged, 1 hang" in page.text
    assert "loss is <b>nan</b>" in page.text
    assert "1 unfinished" in page.text
    assert "b" not in page.tags
    assert set(page.figures) == {"growth"}


def test_what_users_name_is_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x>"
    ledger = ledger_of(25)
    found = gather(tmp_path, ledger.results)
    renamed = {trial: {evil: 0.5 + int(trial), **own} for trial, own in found.params.items()}
    important = [
        dataclasses.replace(one, target=evil, fractions={evil: 1.0}) for one in found.importances
    ]
    page = page_of(
        tmp_path,
        ledger,
        name=evil,
        params=renamed,
        importances=important,
        request={"space": evil},
        environment={"command": evil},
    )
    assert page.loads == []
    assert "img" not in page.tags
    assert page.tags.count("script") == 3 + len(page.figures)
    assert evil in page.text
    front = next(t for t in page.figures["front"]["data"] if t["name"] == "front (validation)")
    assert "&lt;img src=x&gt;" in front["text"][0]
    assert "<img" not in json.dumps(page.figures)


def test_passwords_are_left_out() -> None:
    url = "postgresql://me:secret@host/db"
    clean = without_passwords({"storage": url, "command": f"sweep --storage {url} --out x", "n": 3})
    assert "secret" not in json.dumps(clean)
    assert clean["command"] == "sweep --storage postgresql://...@host/db --out x"


def test_verified_points_stand_beside_those_of_validation(tmp_path: Path) -> None:
    ledger = ledger_of(4)
    front = ledger.results.front()
    signs: list[list[dict[str, str]]] = [[] for _ in front.points]
    signs[-1].append({"name": "square-stronger", "message": "Square found <more> than PGD."})
    measured = {"natural": 0.3, "n_images": 50}
    suites = {
        p.name: {"robust": {**measured, "worst_case": 0.1 + 0.01 * i, "indicators": signs[i]}}
        for i, p in enumerate(front.points)
    }
    document = verified_document(front, VerifyConfig(attacks=("fgsm",)), suites)
    write_json(tmp_path / "verified.json", document)
    page = page_of(tmp_path, ledger)
    expected = [(30.0, round(10.0 + i, 4)) for i in range(len(front.points))]
    assert drawn(page.figures["front"], "the same, verified (test)") == expected
    assert "natural, test" in page.text
    assert page.text.count("square-stronger") == 2
    assert ": Square found <more> than PGD." in page.text
    assert "on 50 test images" in json.dumps(page.figures["front"])


def test_attainment_is_that_of_its_definition() -> None:
    """Two repeats of two points each, by hand: the union's best, and what both reach."""
    values = {1: [(0.8, 0.5), (0.9, 0.3)], 2: [(0.7, 0.6), (0.85, 0.4)], 3: [(0.1, 0.1)]}
    rows = [
        {"repeat": repeat, "accuracies": dict(zip(TWO, point, strict=True))}
        for repeat, points in values.items()
        for point in points
    ]
    found = attainment(rows, TWO)
    assert (found.n_repeats, found.n_left_out) == (2, 1)
    one, both = (surface.values.tolist() for surface in found.surfaces)
    assert one == [[0.7, 0.6], [0.8, 0.5], [0.85, 0.4], [0.9, 0.3]]
    assert both == [[0.7, 0.5], [0.8, 0.4], [0.85, 0.3]]


def test_repeats_are_drawn_by_how_many_attain(tmp_path: Path) -> None:
    ledger = ledger_of(3)
    rows = [
        {
            "trial": "0000",
            "repeat": repeat,
            "mixing_ratio": 0.5,
            "accuracies": {"natural": x, "robust": y},
        }
        for repeat, x, y in ((1, 0.6, 0.4), (2, 0.7, 0.3))
    ]
    write_json(tmp_path / "repeats.json", rows)
    figure = page_of(tmp_path, ledger).figures["attainment"]
    assert drawn(figure, "attained by 1 of 2 repeats") == [(60.0, 40.0), (70.0, 30.0)]
    assert drawn(figure, "attained by all 2 repeats") == [(60.0, 30.0)]


# Importance


def test_the_planted_parameter_matters_most_for_everything() -> None:
    found = importances(ledger_of(60).results)
    assert [one.target for one in found] == [FRONT, "natural accuracy", "robust accuracy"]
    for one in found:
        assert one.refusal is None
        assert one.n_trials == 60
        assert max(one.fractions, key=lambda name: one.fractions[name]) == PLANTED
        assert one.fractions[PLANTED] > 0.8
        assert sum(one.fractions.values()) == pytest.approx(1)
        assert set(one.fractions) == {PLANTED, IDLE, RARE, "sync.how"}
        assert 0 < one.n_with[RARE] < one.n_with["sync.how"] == 60


def test_too_few_trainings_have_no_importance() -> None:
    for one in importances(ledger_of(N_LEAST - 1).results):
        assert one.fractions == {}
        assert one.refusal == f"{N_LEAST - 1} trainings count for it; it takes at least {N_LEAST}"


def test_stopped_trials_count_as_far_from_the_front() -> None:
    ledger = ledger_of(10)
    for _ in range(20):
        ledger.tell_stopped(ledger.ask(space, short()).trial, 2, COST, {})
    front, *others = importances(ledger.results)
    assert (front.n_trials, others[0].n_trials) == (30, 10)
    assert front.n_best == 8
    assert others[0].refusal is not None


def test_the_best_are_a_quarter_with_its_ties_but_never_all() -> None:
    assert best_of([4, 3, 2, 1]) == [True, False, False, False]
    assert best_of([3, 3, 2, 1]) == [True, True, False, False]
    assert best_of([2, 1, 1, 1, 1, 1, 1, 1]) == [True] + [False] * 7
    assert best_of([1, 1, 1]) == [False] * 3
    assert best_of([]) == []


def test_a_trial_is_as_near_the_front_as_its_best_point() -> None:
    ledger = ledger_of(6)
    near = nearness(ledger.results.points(), TWO)
    assert {trial for trial, rank in near.items() if rank == 0} == {
        point.trial for point in ledger.results.front().points
    }


# Published points


def csv_file(folder: Path, text: str) -> Path:
    path = folder / "reference.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("rows", ["a,0.9,0.5,WRN\nb,1,0", 'a,90,50,WRN\n"b",100,0'])
def test_published_points_may_be_shares_or_percent(tmp_path: Path, rows: str) -> None:
    text = f"name,natural,robust,model\n{rows},\n"
    a, b = read_reference(csv_file(tmp_path, text), TWO)
    assert a.accuracies == pytest.approx({"natural": 0.9, "robust": 0.5})
    assert a.about == {"model": "WRN"}
    assert b.accuracies == pytest.approx({"natural": 1, "robust": 0})
    page = page_of(tmp_path, ledger_of(2), reference=[a, b])
    name = "published: other models, other attacks"
    assert drawn(page.figures["front"], name) == [(90.0, 50.0), (100.0, 0.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,natural\na,1\n", "needs the columns name, natural, robust"),
        ("", "a column for each"),
        ("name,natural,robust\na,90,0.5\n", "all in \\[0, 1\\], or all in %"),
        ("name,natural,robust\na,90,many\n", "'many' in .*line 2"),
        ("name,natural,robust\na,90,101\n", "'101' in .*line 2"),
        ("name,natural,robust\na,90,nan\n", "'nan'"),
        ("name,natural,robust\na,90\n", "as many cells as columns.*line 2"),
        ("name,natural,robust\na,90,5,6\n", "as many cells as columns"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        read_reference(csv_file(tmp_path, text), TWO)


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reference.csv"
    path.write_bytes("name,natural,robust\nMądry,90,5\n".encode("utf-16"))
    with pytest.raises(InvalidConfigError, match="UTF-8"):
        read_reference(path, TWO)


# For print


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [TWO, THREE])
@pytest.mark.parametrize("n_trials", [0, 1, 5])
def test_plots_for_print_are_written(
    tmp_path: Path, n_trials: int, objectives: tuple[str, ...]
) -> None:
    ledger = ledger_of(n_trials, objectives)
    write_plots(
        tmp_path / "plots",
        ledger.results.front(),
        ledger.results.points(),
        ledger.results.history(),
    )
    for name, n_rows in (("front", len(ledger.results.points())), ("hypervolume", n_trials)):
        files = {kind: tmp_path / "plots" / f"{name}.{kind}" for kind in ("png", "svg", "csv")}
        assert files["png"].read_bytes().startswith(b"\x89PNG")
        assert "<svg" in files["svg"].read_text()
        assert len(files["csv"].read_text().splitlines()) == 1 + n_rows


# In a browser


def in_browser(page: Path, *options: str) -> str:
    """The document that a headless Chromium has after the page's scripts ran."""
    assert CHROMIUM is not None
    base = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader"]
    return subprocess.run(
        [*base, "--virtual-time-budget=20000", "--dump-dom", *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    ).stdout


def whole(folder: Path) -> ReportContents:
    """A sweep with everything that a report can show."""
    ledger = ledger_of(30)
    rows = [{"repeat": 1, "accuracies": {"natural": 0.6, "robust": 0.4}}]
    reference = read_reference(csv_file(folder, "name,natural,robust\na,0.9,0.5\n"), TWO)
    found = gather(folder, ledger, reference)
    return dataclasses.replace(found, attainment=attainment(rows, TWO))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("make", [whole, lambda folder: gather(folder, ledger_of(0))])
def test_a_browser_draws_every_figure_without_an_error(
    tmp_path: Path, make: Callable[[Path], ReportContents]
) -> None:
    text = report_html(make(tmp_path))
    figures = Page(text).figures
    (tmp_path / "report.html").write_text(text)
    seen = in_browser(tmp_path / "report.html")
    assert 'data-drawn="yes"' in seen
    assert '<p id="problem" hidden=""></p>' in seen
    for name in figures:
        _, after = seen.split(f'data-figure="{name}"')
        drawing = after.split("</figure>")[0]
        assert 'class="main-svg"' in drawing, name
        assert name != "parallel" or drawing.count('class="axis-title"') > 5


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_an_error_in_a_script_is_shown(tmp_path: Path) -> None:
    """Without that, the test above could not fail."""
    text = report_html(gather(tmp_path, ledger_of(1)))
    broken = text.replace("// Figures take", "nowhere(); // Figures take", 1)
    (tmp_path / "report.html").write_text(broken)
    assert "nowhere is not defined" in in_browser(tmp_path / "report.html")


@pytest.mark.slow
def test_the_command_writes_the_page_again(two_trials: Path, tmp_path: Path) -> None:
    from tests.helpers.small_sweep import copy_of

    folder = copy_of(two_trials, tmp_path / "out").folder
    (folder / "report.html").unlink()
    path = csv_file(tmp_path, "name,natural,robust\nMadry et al.,87.3,45.8\n")
    assert main(["report", str(folder), "--reference", str(path)]) == 0
    page = Page((folder / "report.html").read_text())
    assert "Madry et al." in json.dumps(page.figures["front"])
    assert (folder / "plots" / "front.svg").is_file()
