"""The attack suite on a model: resumable, and its result as a document and a table."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress as ProgressBar
from rich.table import Table
from torch import nn

from generalist_core.averaging import names_of
from generalist_core.codec import to_dict
from generalist_core.config import TrainConfig
from generalist_core.data import Dataset, Split
from generalist_core.models import ModelFactory, build_model
from generalist_core.suite import Progress, SuiteConfig, SuiteEvaluation, SuiteResult
from generalist_core.validation import InvalidConfigError, require
from search.errors import SweepFolderError
from search.files import load_tensors, save_tensors
from search.front import accuracy_interval


def evaluate_resumably(
    model: nn.Module,
    split: Split,
    suite: SuiteConfig,
    *,
    place: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SuiteResult:
    """Run the suite; with `place` it is stored there after every batch and continued from there.

    Raises:
        EvaluationError: the model or an attack breaks a law of the evaluation.
        InvalidConfigError: `place` holds the evaluation of another model, data or suite.
    """
    evaluation = SuiteEvaluation(model, split, suite)
    if place is not None and place.is_file():
        evaluation.load_state_dict(load_tensors(place))
    for progress in evaluation:
        if place is not None:
            save_tensors(place, evaluation.state_dict())
        if on_progress is not None:
            on_progress(progress)
    return evaluation.result()


def suite_document(result: SuiteResult) -> dict[str, Any]:
    """The result as JSON: worst case, accuracy after each attack, findings, and what it took."""
    n_images = result.n_images
    return {
        "suite": to_dict(result.config),
        "n_images": n_images,
        "natural": result.accuracies["natural"],
        "worst_case": result.worst_case_accuracy,
        "worst_case_interval": accuracy_interval(result.worst_case_accuracy, n_images),
        "accuracy_after": result.accuracies,
        "skipped": dict(result.skipped),
        "findings": [asdict(finding) for finding in result.findings],
        "forward_images": sum(result.forward_images.values()),
        "gradient_images": sum(result.gradient_images.values()),
        "autoattack_cost_saved": result.saved_share,
        "seconds": sum(result.seconds.values()),
    }


def suite_table(document: Mapping[str, Any]) -> Table:
    """Accuracy after each attack for the console, in % with 95 % intervals."""
    suite, n_images = document["suite"], document["n_images"]
    title = f"{suite['norm']} {suite['epsilon']:.4g}, {n_images} images"
    table = Table("after", "accuracy %", title=title, title_justify="left")
    for name, accuracy in document["accuracy_after"].items():
        low, high = accuracy_interval(accuracy, n_images)
        table.add_row(name, f"{100 * accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    return table


def empty_model(config: TrainConfig, data: Dataset, model: ModelFactory | None) -> nn.Module:
    """The architecture, to load weights into."""
    if model is not None:
        return model(data.n_classes, data.shape).eval()
    return build_model(config.model, data.n_classes, data.shape, seed=config.seed).eval()


def load_model(path: Path, architecture: nn.Module, *, trusted: bool) -> nn.Module:
    """The model that a file holds: a state dict for `architecture`, or if `trusted` a whole module.

    A whole module runs code when it is loaded; a state dict cannot. BatchNorm's batch counters may
    be missing.

    Raises:
        InvalidConfigError: not loadable, or not of this architecture.
    """
    if trusted:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=False)
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise InvalidConfigError(
                f"{path} must be a whole file of torch, but: {error}"
            ) from error
        if isinstance(loaded, nn.Module):
            return loaded.eval()
    try:
        state = load_tensors(path)
    except SweepFolderError as error:
        cure = "If you trust its author, load a whole module with --trust."
        raise InvalidConfigError(f"{error} {cure}") from error
    require(isinstance(state, dict), "a state dict", f"{type(state).__name__} in {path}")
    needed, own = set(names_of(architecture)), set(architecture.state_dict())
    law, cure = "weights of the architecture", "Give --config, or --model and --width."
    missing, unknown = sorted(needed - set(state)), sorted(set(state) - own)
    require(not missing and not unknown, law, f"no {missing[:3]}, unknown {unknown[:3]}", cure)
    try:
        architecture.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InvalidConfigError(f"`{law}` must be given, but {error}. {cure}") from error
    return architecture.eval()


def follow(bar: ProgressBar, title: str) -> Callable[[Progress], None]:
    """A callback that shows an evaluation's attack, images and running bound."""
    task = bar.add_task(title, total=None)

    def show(progress: Progress) -> None:
        text = f"{title}: {progress.attack}, at most {100 * progress.bound:.1f} %"
        bar.update(
            task, description=text, completed=progress.n_done, total=max(1, progress.n_total)
        )

    return show
