"""A ledger of completed trials with a planted effect, and a page of a report taken apart."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from optuna.storages import InMemoryStorage

from generalist_core.config import Ratio, TrainConfig, as_weights
from generalist_core.config.codec import replace_at
from generalist_core.config.mixing import GLOBAL
from generalist_core.config.presets import short
from generalist_core.training.evaluator import OperatingPoint
from search.report.contents import gather
from search.report.page import report_html
from search.study.ledger import Ledger
from search.study.records import Proposal
from search.study.samplers import build_samplers
from spaces import Space, Trial, tune_float

TWO, THREE = ("natural", "robust"), ("natural", "robust", "l2")
PLANTED, IDLE, RARE = "mixing.decay", "experts.natural.label_smoothing", "sync.start_epoch"
COST = {"forward_images": 1e6, "reused_forward_images": 0, "seconds": 60, "gpu_seconds": 0}


def space(trial: Trial, base: TrainConfig) -> TrainConfig:
    """A parameter that matters, one that does not, and one that half of the trials have."""
    config = tune_float(trial, base, PLANTED, 0.9, 0.99)
    config = tune_float(trial, config, IDLE, 0.0, 0.2)
    if trial.suggest_categorical("sync.how", ["as-is", "later"]) == "later":
        config = replace_at(config, RARE, trial.suggest_int(RARE, 4, 8))
    return config


def accuracies(proposal: Proposal, ratio: Ratio, objectives: tuple[str, ...]) -> dict[str, float]:
    """Better with the planted parameter alone; the ratio trades natural for the others."""
    merit, weight = (proposal.params.get(PLANTED, 0.9) - 0.9) / 0.09, as_weights(ratio, 2)[1]
    natural, others = 0.4 + 0.3 * merit + 0.2 * (1 - weight), 0.2 + 0.3 * merit + 0.2 * weight
    return {name: natural if name == "natural" else others for name in objectives}


def ledger_of(
    n: int, objectives: tuple[str, ...] = TWO, of: Space = space, *, with_global: bool = False
) -> Ledger:
    """`n` completed trials, random in a space, with global learners better than their mixtures."""
    sampler = build_samplers("random", seed=1, n_startup=1)
    ledger = Ledger(InMemoryStorage(), objectives, sampler_of=sampler)
    for _ in range(n):
        proposal = ledger.ask(of, short())
        points = [
            OperatingPoint(
                mixing_ratio=r,
                accuracies=accuracies(proposal, r, objectives),
                n_images=500,
                epoch=16,
            )
            for r in dict.fromkeys((0.0, 0.5, 1.0, proposal.mixing_ratio))
        ]
        if with_global:
            better = {name: value + 0.15 for name, value in points[1].accuracies.items()}
            learner = dataclasses.replace(points[1], mixing_ratio=GLOBAL, accuracies=better)
            points.append(learner)
        ledger.tell_released(proposal.trial, points, COST)
    return ledger


class Page(HTMLParser):
    """The addresses that a page would load, its figures, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.ids: set[str] = set()
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
        self.anchors |= {place[1:] for place in places if place and place.startswith("#")}
        self.ids.add(about.get("id") or "")
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
    """The page of a sweep, with some of its contents replaced."""
    return Page(report_html(dataclasses.replace(gather(folder, ledger.results), **changes)))


def drawn(figure: Mapping[str, Any], *names: str) -> list[tuple[float, float]]:
    """The points of a figure's traces of these names."""
    traces = [trace for trace in figure["data"] if trace.get("name") in names]
    return [pair for trace in traces for pair in zip(trace["x"], trace["y"], strict=True)]


def csv_file(folder: Path, text: str) -> Path:
    """A CSV of published results."""
    path = folder / "reference.csv"
    path.write_text(text)
    return path


def axes(page: Page) -> list[dict[str, Any]]:
    """The axes of the parallel coordinates."""
    dimensions: list[dict[str, Any]] = page.figures["parallel"]["data"][0]["dimensions"]
    return dimensions
