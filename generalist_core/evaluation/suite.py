"""The attack suite: which images a model classifies correctly under each of several attacks.

It advances by one batch of one attack at a time, with the cheapest attack first. An image that one
attack has broken is spared the others. An evaluation can be stored after any batch and resumed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from generalist_core.attacks.counting import CountingModel
from generalist_core.config.codec import to_json
from generalist_core.config.suite import AUTOATTACK, LIBRARY_ATTACKS, SuiteConfig, longest_pgd
from generalist_core.data.splits import Batch, Split, as_floats
from generalist_core.device import full_precision
from generalist_core.evaluation.autoattack import library_checks, unavailable
from generalist_core.evaluation.frozen import frozen
from generalist_core.evaluation.indicators import (
    Indicator,
    Probe,
    fraction_of,
    library_warnings,
    order_violations,
    probed_indicators,
    reduced_budget,
    square_stronger,
)
from generalist_core.evaluation.judge import Judge
from generalist_core.evaluation.laws import require_eval_mode, require_sound_model, untouched
from generalist_core.evaluation.stability import unstable
from generalist_core.evaluation.suite_result import Progress, SuiteResult
from generalist_core.fingerprints import content_digest, state_digest, tensor_bytes
from generalist_core.randomness import derive_seed, global_seed
from generalist_core.validation import EvaluationError, InvalidConfigError

_N_STABILITY_IMAGES = 32
"""The fewest images on which it is checked that a model gives the same logits again."""


def run_suite(
    model: nn.Module,
    split: Split,
    config: SuiteConfig,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> SuiteResult:
    """The result of the whole suite; `on_progress` is called after every batch.

    Raises:
        EvaluationError: the model, an attack or its verdicts break a law.
        InvalidConfigError: pyautoattack is needed and missing.
    """
    with untouched(model):
        evaluation = SuiteEvaluation(model, split, config)
        for progress in evaluation:
            if on_progress is not None:
                on_progress(progress)
        return evaluation.result()


class SuiteEvaluation:
    """An evaluation in progress: iterate over it, store it after any batch, then get its result.

    The model is copied, and the copy is evaluated in float32 on the device of the images. Noise
    depends on the seed, the attack and the image (AutoAttack's on the batch), never on what was
    drawn before, so a resumed evaluation ends bit-equal to one that never stopped (on a CPU).
    """

    def __init__(self, model: nn.Module, split: Split, config: SuiteConfig) -> None:
        require_eval_mode(model)
        n = len(split) if config.n_images is None else min(config.n_images, len(split))
        self.images = split.take(torch.arange(n, device=split.labels.device))
        self.device = split.images.device
        self.size = config.size_on(self.device.type)
        self.config = config = replace(config, batch_size=self.size)
        self.model = CountingModel(frozen(model, self.device))
        self.digest = state_digest(self.model)
        with self._conditions("checks"):
            probe = self._probe(max(_N_STABILITY_IMAGES, config.n_check_images))
            n_classes = require_sound_model(self.model, probe.x, self.images.labels)
            self.instability = unstable(probe)
            self.judge = Judge(
                model=self.model,
                config=config,
                n_classes=n_classes,
                is_stable=self.instability is None and config.precision == "float32",
            )
        images, labels = tensor_bytes(self.images.images), tensor_bytes(self.images.labels)
        self.fingerprint = content_digest(to_json(config), self.digest, images, labels)
        self.names, self.skipped = self._ordered()
        self.stage, self.batch = 0, 0
        self.verdicts = torch.ones(len(self.names), n, dtype=torch.bool)
        self.attacked = torch.zeros(len(self.names), n, dtype=torch.bool)
        self.counts = torch.zeros(len(self.names), 2, dtype=torch.int64)
        self.seconds = torch.zeros(len(self.names), dtype=torch.float64)
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Progress]:
        while not self.is_done:
            yield self.advance()

    @property
    def is_done(self) -> bool:
        """Whether every attack has seen its images."""
        return self.stage == len(self.names)

    def advance(self) -> Progress:
        """Run the next batch of the current attack."""
        start = time.perf_counter()
        name, batches = self.names[self.stage], self._batches()
        if batches:
            self._judge_batch(name, batches[self.batch])
        self.batch += 1
        self.seconds[self.stage] += time.perf_counter() - start
        progress = Progress(
            attack=name,
            n_done=sum(len(index) for index in batches[: self.batch]),
            n_total=sum(len(index) for index in batches),
            bound=fraction_of(self.verdicts[: self.stage + 1].all(0)),
        )
        if self.batch >= len(batches):
            self._open_next_stage()
        return progress

    def result(self) -> SuiteResult:
        """The result of a finished evaluation, with its indicators.

        Raises:
            EvaluationError: attacks are left to run, or the model has changed.
        """
        if not self.is_done:
            raise EvaluationError(
                f"Every attack must have run, but {self.names[self.stage :]} are left. Iterate to "
                "the end first."
            )
        indicators = self._indicators()
        if state_digest(self.model) != self.digest:
            raise EvaluationError(
                "The model must stay the same, but got other weights. Its forward writes to its "
                "buffers, so verdicts depend on what came before."
            )
        return SuiteResult(
            config=self.config,
            n_images=len(self.images),
            verdicts=self._by_name(self.verdicts),
            attacked=self._by_name(self.attacked),
            forward_images=self._by_name(self.counts[:, 0].tolist()),
            gradient_images=self._by_name(self.counts[:, 1].tolist()),
            full_costs={name: sum(self.judge.full_cost(name)) for name in self.names},
            seconds=self._by_name(self.seconds.tolist()),
            skipped=self.skipped,
            indicators=indicators,
        )

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as tensors and text that load with `weights_only=True`."""
        return {
            "fingerprint": self.fingerprint,
            "position": torch.tensor([self.stage, self.batch]),
            "verdicts": self.verdicts.clone(),
            "attacked": self.attacked.clone(),
            "counts": self.counts.clone(),
            "seconds": self.seconds.clone(),
            "warnings": list(self.warnings),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`.

        Raises:
            InvalidConfigError: it is the state of another configuration, model or data.
        """
        if state.get("fingerprint") != self.fingerprint:
            raise InvalidConfigError(
                "A stored evaluation must be of this model, data and suite, but got another. "
                "Evaluate with the model, data and settings that it began with, or start anew."
            )
        self.stage, self.batch = state["position"].tolist()
        for name in ("verdicts", "attacked", "counts", "seconds"):
            getattr(self, name).copy_(state[name])
        self.warnings = list(state["warnings"])

    def _ordered(self) -> tuple[list[str], dict[str, str]]:
        """The attacks that can run, by increasing cost, and the reasons why the others cannot."""
        shape = tuple(self.images.images.shape[1:])
        reasons = {
            name: unavailable(name, self.config.norm, self.judge.n_classes, shape)
            for name in self.config.names
        }
        able = [name for name, reason in reasons.items() if reason is None]
        skipped = {name: reason for name, reason in reasons.items() if reason is not None}
        return sorted(able, key=lambda name: sum(self.judge.full_cost(name))), skipped

    def _batches(self) -> Sequence[Tensor]:
        """The indices of the images that the current attack sees, batch by batch.

        Survivors come first, so that their batches, and thus all noise, are the same with
        `attack_all`.
        """
        survivors = self.verdicts[: self.stage].all(0)
        batches = _split(survivors, self.size)
        if self.config.attack_all and self.stage > 0:
            batches += _split(self.verdicts[0] & ~survivors, self.size)
        return batches

    def _open_next_stage(self) -> None:
        """Begin the next attack, whose verdicts are those before it until it has attacked."""
        self.stage, self.batch = self.stage + 1, 0
        if not self.is_done:
            seen = 1 if self.config.attack_all else self.stage
            self.verdicts[self.stage] = self.verdicts[:seen].all(0)

    def _judge_batch(self, name: str, index: Tensor) -> None:
        x, y = self._images_at(index)
        counts = self.model.forward_images, self.model.gradient_images
        with self._conditions(name, self.batch):
            correct, warnings = self.judge.verdicts(name, x, y, index)
        self.warnings += warnings
        self.counts[self.stage, 0] += self.model.forward_images - counts[0]
        self.counts[self.stage, 1] += self.model.gradient_images - counts[1]
        self.verdicts[self.stage, index] = correct.cpu()
        self.attacked[self.stage, index] = name != "natural"

    def _indicators(self) -> tuple[Indicator, ...]:
        """The indicators from the verdicts, then from a probe of a few images."""
        verdicts = self._by_name(self.verdicts)
        runs_library = any(name in LIBRARY_ATTACKS for name in self.names)
        budget = reduced_budget(self.config.n_iterations, self.config.n_queries)
        seen = [self.instability, square_stronger(verdicts), budget if runs_library else None]
        if self.config.attack_all:
            seen += order_violations(verdicts | _autoattack_of(verdicts))
        warnings = list(self.warnings)
        if self.config.n_check_images:
            with self._conditions("checks"):
                probe = self._probe(self.config.n_check_images)
                seen += probed_indicators(probe) if self.instability is None else ()
                warnings += library_checks(self.model, probe.x, probe.y) if runs_library else ()
        seen += library_warnings(warnings)
        return tuple(dict.fromkeys(indicator for indicator in seen if indicator is not None))

    def _probe(self, n: int) -> Probe:
        x, y = self._images_at(torch.arange(min(n, len(self.images))))
        return Probe(
            logits_of=self.model,
            x=x,
            y=y,
            norm=self.config.norm,
            epsilon=self.config.epsilon,
            seed=self.config.seed,
            n_steps=longest_pgd(self.config),
        )

    def _images_at(self, index: Tensor) -> Batch:
        batch = self.images.take(index.to(self.device))
        return as_floats(batch.images, torch.float32), batch.labels.long()

    @contextlib.contextmanager
    def _conditions(self, *purpose: str | int) -> Iterator[None]:
        """The precision, and global random states that depend only on the purpose.

        Checks of the model are in full precision.
        """
        seed = derive_seed(self.config.seed, "suite", *purpose)
        tf32 = self.config.precision == "tfloat32" and purpose != ("checks",)
        with global_seed(seed, self.device), full_precision(self.device, tf32=tf32):
            yield

    def _by_name(self, rows: Sequence[Any] | Tensor) -> dict[str, Any]:
        return dict(zip(self.names, rows, strict=True))


def _split(mask: Tensor, batch_size: int) -> list[Tensor]:
    index = mask.nonzero()[:, 0]
    return list(torch.split(index, batch_size)) if len(index) else []


def _autoattack_of(verdicts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The verdicts of the whole of AutoAttack, if all its components ran."""
    if not all(name in verdicts for name in AUTOATTACK):
        return {}
    return {"autoattack": torch.stack([verdicts[name] for name in AUTOATTACK]).all(0)}
