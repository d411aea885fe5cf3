"""The groups of options that several commands share, and the configurations that they make."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from generalist_core.config import (
    NFGSM,
    DataConfig,
    ModelConfig,
    Norm,
    Precision,
    SeveralAttacks,
    TrainConfig,
)
from generalist_core.config.attacks import Combine
from generalist_core.config.codec import load_config, replace_all, replace_at
from generalist_core.config.norms import usual_radius, with_combined_norms, with_norms
from generalist_core.config.presets import PRESETS
from generalist_core.config.suite import KNOWN, SuiteConfig, SuitePrecision
from generalist_core.validation import InvalidConfigError
from search.cli.option_groups import given, option, switch
from search.cli.values import names, norms, radius, written_value
from search.config import Limits, Resources, SweepConfig

if TYPE_CHECKING:
    from rich.console import Console

ATTACKS = "pgd-20,autoattack"

LOCAL = "run the trials in this process, without Ray; with --debug, raise a trial's first error"

AUGMENTATION: dict[str, dict[str, Any]] = {
    "cifar10": {"crop_padding": 4, "flip": True, "n_validation": 1000},
    "cifar100": {"crop_padding": 4, "flip": True, "n_validation": 1000},
    "svhn": {"crop_padding": 4, "n_validation": 1000},
    "mnist": {"n_validation": 1000},
    "fashion-mnist": {"n_validation": 1000},
}
"""How training images of each data set are usually augmented."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What a command says."""

    quiet: bool = switch("print only the result and errors")
    debug: bool = switch("show the traceback of an error, and what Ray and Optuna write")

    def console(self) -> Console:
        """The console that shows progress: standard error, or nothing."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.quiet)

    def say_starting(self) -> None:
        """Show that the command runs, before it imports what takes seconds."""
        from search.monitoring.stages import say_stage

        say_stage(self.console(), "starting")


@dataclass(frozen=True, kw_only=True)
class ResultOptions(OutputOptions):
    """What a command says, and the form of its result."""

    json: bool = switch("print the result as one JSON document")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The folder of a training, and how it trains."""

    TITLE = "Training"

    out: Path | None = option("a new or empty folder", "FOLDER")
    n_train: int | None = option("training images", "N", sets="data.n_train")
    epochs: int | None = option(
        "epochs of a training, where the space does not search them", "N", sets="epochs"
    )
    batch_size: int | None = option("images per step", "N", sets="batch_size")
    init: str | None = option(
        "weights to begin from: a state dict saved by torch, or a checkpoint with one",
        "FILE",
        sets="model.init",
    )
    precision: Precision | None = option("default that of the preset or file", sets="precision")
    norms: dict[Norm, float | None] | None = option(
        "a robust expert and an objective for each norm, such as linf,l2 with the radii that are "
        "usual for the data, or linf=8/255,l2=0.5",
        "A,B",
        type=norms,
    )
    combine: Combine | None = option(
        "with --norms: one robust expert for all of them, trained on their attacks combined so"
    )
    objectives: list[str] | None = option(
        "natural, then the names of attacks, union or mean; default each attack",
        "A,B",
        sets="evaluation.objectives",
        type=names,
    )
    set: tuple[str, ...] = option(
        "set any field, such as experts.natural.optimizer.lr=0.05 (VALUE is JSON)", "PATH=VALUE", ()
    )

    def folder(self) -> Path:
        """The folder that is given.

        Raises:
            InvalidConfigError: there is none.
        """
        if self.out is None:
            raise InvalidConfigError("`--out` must be given, but is missing. Name a new folder.")
        return self.out


@dataclass(frozen=True, kw_only=True)
class ProblemOptions:
    """The data, the model and the attack radius; what is not given is a preset's or a file's."""

    TITLE = "Data and model"

    config: Path | None = option("start from this JSON file instead of a preset", "FILE")
    preset: str | None = option(
        "short (default), paper, official, or Generalist++ for the tasks in the name",
        type=click.Choice([*PRESETS]),
    )
    data: str | None = option(
        "digits, mnist, fashion-mnist, cifar10, cifar100, svhn, or a folder of images",
        "NAME",
        sets="data.name",
    )
    data_root: str | None = option("folder of the data; default data", "FOLDER", sets="data.root")
    download: bool | None = option(
        "download the data if they are missing",
        flag="--download/--no-download",
        sets="data.download",
    )
    n_validation: int | None = option(
        "validation images; default 500 or 1000, fewer of few images", "N", sets="data.n_validation"
    )
    image_size: int | None = option("resize images to N x N", "N", sets="data.image_size")
    model: str | None = option(
        "convnet, resnet18, preactresnet18, wrn-28-10, wrn-32-10, torchvision:NAME, "
        "or FILE.py:FUNCTION (runs that file)",
        "NAME",
        sets="model.name",
    )
    width: int | None = option("width of a built-in model", "N", sets="model.width")
    epsilon: float | None = option(
        "radius of all attacks, images in [0, 1], such as 0.03 or 8/255", "E", type=radius
    )
    seed: int | None = option("seed of weights, data order and noise", "N", sets="seed")
    device: str | None = option("auto (default), cpu or cuda[:N]", "NAME", sets="device")


@dataclass(frozen=True, kw_only=True)
class MovedOptions:
    """Where parts of a sweep are now; that they are the same is checked by their digests."""

    TITLE = "If they have moved"

    data_root: Path | None = option("folder of the data, or of the images", "FOLDER")
    model: str | None = option("the file of the model (runs it)", "FILE.py:FUNCTION")


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """An attack suite."""

    TITLE = "Attacks"

    attacks: str = option(f"default {ATTACKS}; known: {KNOWN}", "A,B", ATTACKS)
    n_images: int | None = option("attack only the first N images; default all", "N")
    batch_size: int | None = option("default 250, on a GPU 1000", "N", flag="--attack-batch-size")
    seed: int = option("default 0", "N", 0, flag="--attack-seed")
    precision: SuitePrecision = option(
        "that of attacks: float32 (default), or tfloat32, faster on GPUs", default="float32"
    )

    def settings(self) -> dict[str, Any]:
        """The fields of `SuiteConfig` and `VerifyConfig`."""
        return {**given(self), "attacks": tuple(self.attacks.split(","))}


@dataclass(frozen=True, kw_only=True)
class EndOptions:
    """When a resumed sweep ends; a time budget that is not given is none."""

    trials: int | None = option("number of trainings in all; default as before", "N")
    budget: float | None = option("forward images in all; default as before", "C")
    time_budget: float | None = option("stop after S seconds", "S")

    def over(self, before: SweepConfig) -> SweepConfig:
        """The request as it was, changed by the options that were given."""
        changes = given(self)
        time_budget_s = changes.pop("time_budget", None)
        return replace(before, **changes, time_budget_s=time_budget_s)


@dataclass(frozen=True, kw_only=True)
class FailureOptions:
    """The limits of a sweep; what is not given stays as it was."""

    TITLE = "Failures"

    max_failures: int | None = option("end the sweep after N failed trials", "N")
    fail_fast: bool = switch("end the sweep after the first failed trial")
    max_retries: int | None = option("restarts of a trial whose worker died; default 3", "N")
    trial_s: float | None = option("fail a trial that trains longer", "S", flag="--trial-limit")
    epoch_s: float | None = option(
        "treat an epoch that takes longer as a hang; default 3600", "S", flag="--epoch-limit"
    )
    heartbeat_s: float | None = option(
        "end a worker without a sign of life for so long; default 120",
        "S",
        flag="--heartbeat-limit",
    )
    may_accumulate: bool | None = option(
        "restart a trial that ran out of memory, with each batch in two halves",
        flag="--accumulate/--no-accumulate",
    )

    def over(self, before: Limits) -> Limits:
        """The limits as they were, changed by the options that were given."""
        changes = given(self)
        first = {"max_failures": 1} if changes.pop("fail_fast") else {}
        return replace(before, **{**changes, **first})


@dataclass(frozen=True, kw_only=True)
class ResourceOptions:
    """Where trials run; what is not given stays as it was."""

    TITLE = "Resources"

    workers: int | None = option("number of trials at a time; default as many as fit", "N")
    cpus_per_trial: float | None = option("CPUs per trial; default 1", "X")
    gpus_per_trial: float | None = option("GPUs per trial, from 0 (default) to 1", "X")
    address: str | None = option("join a Ray cluster, or `auto`; default a local one", "HOST:PORT")

    def over(self, before: Resources, *, local: bool | None = None) -> Resources:
        """The resources as they were, changed by the options that were given.

        Raises:
            InvalidConfigError: a local sweep is to have GPUs of Ray.
        """
        if self.gpus_per_trial and (before.local if local is None else local):
            raise InvalidConfigError(
                "`--gpus-per-trial` must be left out with --local, but got "
                f"{self.gpus_per_trial:g}. Without Ray a trial has the whole of --device."
            )
        elsewhere = {"workers": None, "address": None} if local else {}
        place = {} if local is None else {"local": local}
        return replace(before, **{**elsewhere, **given(self), **place})


def build_config(
    problem: ProblemOptions,
    training: TrainingOptions | None = None,
    before: TrainConfig | None = None,
) -> TrainConfig:
    """The TrainConfig that the options describe, or change in the one `before`.

    Raises:
        InvalidConfigError: a file, a field or a value that cannot be used.
    """
    if problem.preset is not None and (problem.config or before) is not None:
        raise InvalidConfigError(
            "`--config`, or a --file with a request, must be given without `--preset`, but got "
            f"--preset {problem.preset}."
        )
    config = before if problem.config is None else load_config(problem.config)
    if config is None:
        config = _from_preset(problem, training)
    elif problem.epsilon is not None:
        config = _with_epsilon(config, problem.epsilon)
    if before is not None and problem.model is not None:  # another file than was pinned
        config = replace(config, model=replace(config.model, digest=""))
    if training is not None and training.init is not None:
        config = replace(config, model=replace(config.model, init_digest=""))
    groups = (problem, training) if training is not None else (problem,)
    settings = [made for group in groups for made in _settings(group)]
    if training is not None:
        config = _with_norms(config, problem, training, settings)
    return with_absolute_paths(replace_all(config, settings))


def build_suite(options: SuiteOptions, config: TrainConfig, norm: Norm | None) -> SuiteConfig:
    """The suite in the ball of the configuration's first attack, or of its first one in a norm.

    If none is in that norm, the radius is that of the first attack.
    """
    attacks = [named.attack for named in config.evaluation.attacks]
    balls = [attack for attack in attacks if not isinstance(attack, NFGSM | SeveralAttacks)]
    attack = next((ball for ball in balls if ball.norm == norm), balls[0])
    return SuiteConfig(norm=norm or attack.norm, epsilon=attack.epsilon, **options.settings())


def _settings(group: ProblemOptions | TrainingOptions) -> Iterator[tuple[str, Any]]:
    """The fields of a TrainConfig that the options of a group set, with their values."""
    for declared in fields(group):
        value = getattr(group, declared.name)
        if "sets" in declared.metadata and value is not None:
            yield declared.metadata["sets"], value
    for assignment in getattr(group, "set", ()):
        path, equals, value = assignment.partition("=")
        if not equals:
            raise InvalidConfigError(f"`--set` must be PATH=VALUE, but got {assignment!r}.")
        yield path, functools.partial(written_value, value)


def _from_preset(problem: ProblemOptions, training: TrainingOptions | None) -> TrainConfig:
    """A preset, which derives its schedules from data, model, epochs and radius."""
    preset = PRESETS[problem.preset or "short"]
    frame: dict[str, Any] = {}
    default = preset()
    if problem.data is not None and problem.data != default.data.name:
        frame["data"] = DataConfig(name=problem.data, **AUGMENTATION.get(problem.data, {}))
    if problem.model is not None or problem.width is not None:
        frame["model"] = ModelConfig(name=problem.model or default.model.name, width=problem.width)
    if training is not None and training.epochs is not None:
        frame["epochs"] = training.epochs
    if problem.epsilon is not None:
        frame["epsilon"] = problem.epsilon
    return preset(**frame)


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The configuration with absolute paths: workers, and later commands, may run elsewhere."""
    from generalist_core.data.datasets import DATASETS
    from generalist_core.user_code import pinned

    config = replace_at(config, "data.root", str(Path(config.data.root).absolute()))
    if config.data.name not in DATASETS and Path(config.data.name).is_dir():
        config = replace_at(config, "data.name", str(Path(config.data.name).absolute()))
    return pinned(config)


def _with_epsilon(config: TrainConfig, epsilon: float) -> TrainConfig:
    """The configuration with this radius for every attack."""
    robust = [expert for expert in config.experts if expert.attack is not None]
    attacked = [f"experts.{expert.name}" for expert in robust]
    attacked += [f"experts.{e.name}.earlier.{n}" for e in robust for n in range(len(e.earlier))]
    judged = [f"evaluation.attacks.{named.name}" for named in config.evaluation.attacks]
    return replace_all(
        config, [(f"{place}.attack.epsilon", epsilon) for place in attacked + judged]
    )


def _with_norms(
    config: TrainConfig,
    problem: ProblemOptions,
    training: TrainingOptions,
    settings: Sequence[tuple[str, Any]],
) -> TrainConfig:
    """The configuration with the norms, whose radii are usual for the data of `settings`.

    Raises:
        InvalidConfigError: one radius is given for all, or norms are combined but not named, or as
            `usual_radius`, `with_norms` and `with_combined_norms`.
    """
    if training.norms is None:
        if training.combine is not None:
            raise InvalidConfigError(
                f"`--combine` must come with --norms, but got --combine {training.combine} alone. "
                "Name the norms, as in --norms linf,l2, or change experts that are there, as in "
                f"--set experts.robust.attack.combine={training.combine}."
            )
        return config
    if problem.epsilon is not None:
        raise InvalidConfigError(
            f"`--epsilon` must be left out with --norms, but got {problem.epsilon:g}. Give a "
            f"radius per norm, as in --norms {next(iter(training.norms))}={problem.epsilon:g}."
        )
    config = replace_all(config, [made for made in settings if made[0].startswith("data.")])
    radii = {
        norm: usual_radius(config.data, norm) if radius is None else radius
        for norm, radius in training.norms.items()
    }
    if training.combine is not None:
        return with_combined_norms(config, radii, training.combine)
    return with_norms(config, radii)
