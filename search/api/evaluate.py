"""Run the attack suite on a model, resumably; its result as a JSON document and as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.progress import Progress as ProgressBar
from rich.table import Table
from torch import nn

from generalist_core.config.codec import to_dict
from generalist_core.config.suite import SuiteConfig
from generalist_core.data.splits import Split
from generalist_core.evaluation.suite import SuiteEvaluation
from generalist_core.evaluation.suite_result import Progress, SuiteResult
from generalist_core.validation import EvaluationError
from search.errors import SweepFolderError
from search.files import is_sealed, load_tensors, save_sealed
from search.front.points import accuracy_interval, interval_text
from search.wording import plural, printable


def evaluate_resumably(
    model: nn.Module,
    split: Split,
    suite: SuiteConfig,
    *,
    place: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SuiteResult:
    """Run the suite; with the file `place`, progress is stored there and continued from there.

    Raises:
        EvaluationError: the model or an attack breaks a law of the evaluation, or a batch does not
            fit in memory.
        SweepFolderError: `place` is damaged, or holds something else.
        InvalidConfigError: `place` holds the evaluation of another model, data or suite.
    """
    evaluation = SuiteEvaluation(model, split, suite)
    if place is not None and place.exists():
        if not is_sealed(place):
            raise SweepFolderError(
                f"{place} must be a stored evaluation as it was written, but is not. "
                "Give another file, or remove it to begin anew."
            )
        evaluation.load_state_dict(load_tensors(place))
    try:
        for progress in evaluation:
            if place is not None:
                save_sealed(place, evaluation.state_dict())
            if on_progress is not None:
                on_progress(progress)
        return evaluation.result()
    except torch.OutOfMemoryError as error:
        raise EvaluationError(
            f"A batch must fit in the GPU's memory, but {evaluation.size} images do not. Attack "
            f"fewer at a time, such as --attack-batch-size {max(1, evaluation.size // 2)}; what is "
            f"stored goes on at its own size only. {error}"
        ) from error


def suite_document(result: SuiteResult) -> dict[str, Any]:
    """The result as JSON: worst case, accuracy after each attack, indicators, and the cost."""
    n_images = result.n_images
    return {
        "suite": to_dict(result.config),
        "n_images": n_images,
        "natural": result.accuracies["natural"],
        "worst_case": result.worst_case_accuracy,
        "worst_case_interval": accuracy_interval(result.worst_case_accuracy, n_images),
        "accuracy_after": result.accuracies,
        "skipped": dict(result.skipped),
        "indicators": [asdict(indicator) for indicator in result.indicators],
        "forward_images": sum(result.forward_images.values()),
        "gradient_images": sum(result.gradient_images.values()),
        "autoattack_cost_saved": result.saved_fraction,
        "seconds": sum(result.seconds.values()),
    }


def suite_table(document: Mapping[str, Any]) -> Table:
    """The accuracy after each attack for the console, in % with its 95 % interval."""
    suite, n_images = document["suite"], document["n_images"]
    title = f"{suite['norm']} {suite['epsilon']:.4g}, {plural(n_images, 'image')}"
    table = Table("after", "accuracy %", title=title, title_justify="left")
    for name, accuracy in document["accuracy_after"].items():
        table.add_row(name, interval_text(accuracy, accuracy_interval(accuracy, n_images)))
    return table


def follow(bar: ProgressBar, title: str) -> Callable[[Progress], None]:
    """A callback that shows the attack of an evaluation, its images and the accuracy so far."""
    title = escape(printable(title))
    task = bar.add_task(title, total=None)

    def show(progress: Progress) -> None:
        text = f"{title}: {progress.attack}, at most {100 * progress.bound:.1f} %"
        bar.update(
            task, description=text, completed=progress.n_done, total=max(1, progress.n_total)
        )

    return show
