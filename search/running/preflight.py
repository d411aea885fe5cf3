"""Tries out a training before any work is done, so that what cannot run is reported at once."""

from __future__ import annotations

import copy
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from generalist_core.attacks.gradient import cross_entropy_of, input_gradient, perturb
from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict, to_dict
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.device import resolve_device
from generalist_core.evaluation.laws import require_sound_model
from generalist_core.fingerprints import images_digest
from generalist_core.models.build import ModelFactory
from generalist_core.randomness import GeneratorNoise, generator, global_seed
from generalist_core.training.trainer import DivergedError, GeneralistTrainer
from generalist_core.user_code import described, running_user_code
from generalist_core.validation import EvaluationError, InvalidConfigError
from search.config import SweepConfig, WarmupConfig

log = logging.getLogger(__name__)


def preflight(config: TrainConfig, data: Dataset, model: ModelFactory | None = None) -> TrainConfig:
    """Take two images through all that a training does; returns the configuration that can run.

    It is the given one; or, with a warning, the one without `channels_last` if only that runs.

    Raises:
        InvalidConfigError: something cannot run; the message says what and why.
    """
    try:
        _rehearse(config, data, model)
    except InvalidConfigError as error:
        if not config.channels_last:
            raise
        config = replace(config, channels_last=False)
        _rehearse(config, data, model)
        log.warning("Training goes on without `channels_last`, with which %s", error)
    return config


def _rehearse(config: TrainConfig, data: Dataset, model: ModelFactory | None) -> None:
    """Mix, judge and attack, and make a step of each expert; the trainer is thrown away."""
    rehearsed = replace(config, n_accumulations=1, compile=False)
    with running_user_code(f"model {config.model.name}"):
        trainer = GeneralistTrainer(rehearsed, data, model=model)
    noise = GeneratorNoise(generator(trainer.device, 0, "preflight"))
    x, y = next(iter(trainer.train_split.take(torch.arange(2)).batches(2, trainer.dtype)))
    with running_user_code(f"model {config.model.name}"):
        _require_sound(trainer, x, y)
        # before any step, after which the weights of an expert may be infinite
        for weights in (
            trainer.global_learner,
            trainer.mixture(config.evaluation.release_ratios[0]),
        ):
            trainer.evaluator.judge(weights, n_images=2, attacked=False)
    for expert in trainer.experts:
        with running_user_code(f"expert {expert.config.name}"), suppress(DivergedError):
            trainer.learn([expert], [(x, y)], None)
    judge = trainer.evaluator.model
    with torch.no_grad():
        predicted = judge(x).argmax(1)  # as an attack may spare what is misclassified
    for named in config.evaluation.attacks:
        with running_user_code(f"evaluation attack {named.name}"):
            perturb(named.attack, judge, x, predicted, noise)


def _require_sound(trainer: GeneralistTrainer, x: Tensor, y: Tensor) -> None:
    """Check what the model gives in train and eval mode, and that it leaves its images alone."""
    network = copy.deepcopy(trainer.experts[0].model)
    images = x.to(memory_format=trainer.experts[0].memory_format).clone()
    with global_seed(0, trainer.device), torch.no_grad():
        logits = network.train()(images)
    if not (isinstance(logits, Tensor) and len(logits) == len(x) and logits.ndim == 2):
        raise InvalidConfigError(
            "The model must give logits of shape (n, classes) in train mode too, but got "
            f"{type(logits).__name__} {tuple(getattr(logits, 'shape', ()))}. Return logits only."
        )
    if not torch.equal(images, x):
        raise InvalidConfigError(
            "The model must leave its images as they are, but changed them in place. Write "
            "`x = x - mean` for `x.sub_(mean)`."
        )
    try:
        require_sound_model(network.eval().requires_grad_(False), x, y)
    except EvaluationError as error:
        raise InvalidConfigError(str(error)) from error
    try:
        input_gradient(network, x, cross_entropy_of(y))
    except RuntimeError as error:
        raise InvalidConfigError(
            "`torch.autograd.grad` must be able to compute the gradient of the images, but got "
            f"{described(error)}. Activation checkpoints need use_reentrant=False."
        ) from error


PACKAGES = ("generalist_core", "search", "spaces")
"""The packages that workers import by name."""


def require_no_shadow(folder: Path) -> None:
    """Check that no module in a folder that Ray's workers search first is named as ours are.

    Raises:
        InvalidConfigError: a file there would be imported in place of one of our packages.
    """
    ours = Path(__file__).resolve().parents[2]
    for name in PACKAGES:
        for file in (folder / f"{name}.py", folder / name / "__init__.py"):
            if file.is_file() and not file.resolve().is_relative_to(ours / name):
                raise InvalidConfigError(
                    f"The folder that a sweep is started in, or from, must have no module named "
                    f"{name}, but has {file}: workers would import it in place of the package. "
                    "Rename it, start the sweep elsewhere, or use --local."
                )


ADDRESS_SPACE = {"Ray": 16e9, "a sweep without Ray": 6e9}
"""Bytes of address space that were found to be enough; 4e9 were not. Most are never used."""


def require_usable_process(*, local: bool) -> None:
    """Check that nothing in this process' own settings lets Ray or torch fail without a word.

    Raises:
        InvalidConfigError: the address space is too small, or Ray could not be imported or write.
    """
    who, cure = ("a sweep without Ray", "") if local else ("Ray", ", or use --local")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < (needed := ADDRESS_SPACE[who]):
        raise InvalidConfigError(
            f"The address space must be unlimited, or at least {needed / 1e9:.0f} GB for {who}, "
            f"but is {limit / 1e9:.1f} GB. Run `ulimit -v unlimited` before{cure}."
        )
    if local:
        return
    if sys.flags.optimize > 1:
        raise InvalidConfigError(
            f"Ray needs docstrings, so PYTHONOPTIMIZE must be at most 1, but is "
            f"{sys.flags.optimize}. Unset it, or use --local."
        )
    for name in ("HOME", "TMPDIR", "RAY_TMPDIR"):
        try:
            Path(os.environ.get(name, "/")).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidConfigError(
                f"{name} must name a folder that is there or can be made, but "
                f"{os.environ[name]!r} gives: {error.strerror}. Name another, or use --local."
            ) from error


CONNECTING_S = 10.0
"""How long the head of a cluster may take to answer; Ray itself would try for many minutes."""


def require_reachable(address: str) -> None:
    """Check that something listens at HOST:PORT; `auto` is for Ray to find.

    Raises:
        InvalidConfigError: nothing listens there.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTING_S).close()
    except (OSError, OverflowError) as error:
        raise InvalidConfigError(
            f"`address` must be that of a running Ray cluster, but {address} gives: {error}."
        ) from error


def require_apart(folder: Path, warmups: WarmupConfig | None) -> None:
    """Check that neither a new sweep nor its store of warm-ups is inside the other.

    Raises:
        InvalidConfigError: one is; the store would be in the output folder before the sweep.
    """
    if warmups is None:
        return
    out, store = (Path(os.path.realpath(path)) for path in (folder, warmups.folder))
    if out.is_relative_to(store) or store.is_relative_to(out):
        raise InvalidConfigError(
            f"`warmups` must be outside the output folder, and this outside of it, but got {store} "
            f"and {out}. Leave it out to share warm-ups within the sweep."
        )


def check_that_it_can_start(
    config: SweepConfig,
    data: Dataset | None,
    model: ModelFactory | None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[SweepConfig, str]:
    """Check before any work is done that the cluster, data, model and device can be used.

    Returns the request that can run, see `preflight`, and the digest of its images. `say` is told
    what is being done.
    """
    resources, device = config.resources, config.base.device
    require_usable_process(local=resources.local)
    if resources.address is not None:
        require_reachable(resources.address)
    if not resources.local:
        scripts = [Path(word) for word in sys.argv[:1] if Path(word).is_file()]
        for folder in (Path.cwd(), *(script.resolve().parent for script in scripts)):
            require_no_shadow(folder)
    names_gpu = device not in ("auto", "cpu")
    if resources.local:
        resolve_device(device)
    elif resources.address is None and (resources.gpus_per_trial > 0 or names_gpu):
        resolve_device(device if names_gpu else "cuda")
        if resources.gpus_per_trial == 0:
            raise InvalidConfigError(
                "`gpus_per_trial` must be > 0 with a GPU device, but got "
                f"gpus_per_trial={resources.gpus_per_trial}, device={device}. "
                "Ray hides GPUs from trials that ask for none."
            )
    on_cpu = from_dict({**to_dict(config.base), "device": "cpu"}, TrainConfig)
    say("loading data")
    data = data or load_dataset(config.base.data)
    say("rehearsing a step of each expert")
    able = preflight(on_cpu, data, model)
    able_to_start = replace(config, base=replace(config.base, channels_last=able.channels_last))
    return able_to_start, images_digest(data.train, data.validation)
