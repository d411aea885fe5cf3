"""Forward passes as functions of images alone: in mixed precision, folded, or compiled."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.compiler.config
from torch import Tensor, nn

from generalist_core.attacks.gradient import Logits
from generalist_core.config import Precision, TrainConfig
from generalist_core.device import training_precision
from generalist_core.models.build import Shape
from generalist_core.models.folding import Folded, fold, folded, refreshed
from generalist_core.models.forms import FormOf, is_same_function, trial_images, tried_once
from generalist_core.recording.steps import why_not_recorded

TOLERANCES: dict[Precision, float] = {
    "float64": 1e-8,
    "float32": 3e-4,
    "tfloat32": 0.03,
    "tfloat32-convolutions": 0.03,
    "bfloat16": 0.1,
}
"""How much a compiled forward may differ by rounding, relative: about the root of the rounding."""

N_COMPILED = 64
"""Far more than the sizes of batches, precisions and forms that one process meets."""


class Forwards(NamedTuple):
    """How an expert computes logits.

    `of_weights` is for gradients of the weights in train mode, and `of_images` for gradients of the
    images in eval mode; before the latter, `folded` must be refreshed if it is there.
    """

    of_weights: Logits
    of_images: Logits
    folded: Folded | None


def forwards_of(model: nn.Module, run: TrainConfig, shape: Shape, *, is_attacked: bool) -> Forwards:
    """The forwards of a model of images (c, h, w), folded and compiled as the run asks.

    Of these forms, those that are not shown to be the same function are not used, see
    `generalist_core.models.forms`. Compiled forms are shown on images as the run's batches are.
    """
    autocasts = run.precision == "bfloat16"
    dtype = torch.bfloat16 if autocasts else None
    form = folded(model, shape, dtype) if is_attacked and run.fold_batchnorm else None
    plain = Forwards(
        of_weights=forward_of(model, autocasts=autocasts),
        of_images=forward_of(form or model, autocasts=autocasts),
        folded=form,
    )
    return _compiled_forwards(plain, model, run, shape, is_attacked) if run.compile else plain


def _compiled_forwards(
    plain: Forwards, model: nn.Module, run: TrainConfig, shape: Shape, is_attacked: bool
) -> Forwards:
    plain_of = functools.partial(forward_of, autocasts=run.precision == "bfloat16")
    device = next(model.parameters()).device
    alone = why_not_recorded(run, device) is not None
    form_of = functools.partial(_compiled_for_images, plain_of, plain.folded, alone)
    images = trial_images(
        math.ceil(run.batch_size / run.n_accumulations),
        shape,
        device,
        torch.float64 if run.precision == "float64" else torch.float32,
        torch.channels_last if run.channels_last else torch.preserve_format,
    )
    tolerance = TOLERANCES[run.precision]
    found = plain

    def is_same(form_of: FormOf, what: str, *, trains: bool = False) -> bool:
        try_out = functools.partial(
            is_same_function,
            *(model, plain_of, form_of, images),
            what=what,
            trains=trains,
            tolerance=tolerance,
        )
        form = what, run.precision, plain.folded is not None, alone
        return tried_once(model, images, form, try_out)

    with training_precision(run.precision):
        if is_same(lambda net: compiled(plain_of(net)), "Training is not compiled", trains=True):
            found = found._replace(of_weights=compiled(plain.of_weights))
        if is_attacked and is_same(
            lambda net: refreshed(*form_of(net)), "The attack is not compiled"
        ):
            of_images, form = form_of(model)
            found = found._replace(of_images=of_images, folded=form)
    return found


def _compiled_for_images(
    plain_of: Callable[[nn.Module], Logits],
    like: Folded | None,
    is_recorded: bool,
    model: nn.Module,
) -> tuple[Logits, Folded | None]:
    """The compiled forward of a frozen twin, and the twin's folded form if the model has one.

    A GPU records it, unless the whole step is recorded.
    """
    twin = frozen_twin(model)
    form = fold(twin, like.convs[0].weight.dtype) if like is not None else None
    return compiled(plain_of(form or twin), of_images=True, is_recorded=is_recorded), form


def forward_of(model: nn.Module, *, autocasts: bool) -> Logits:
    """Logits in the precision of the images; with `autocasts` the model computes in bfloat16."""

    def logits_of(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocasts):
            logits: Tensor = model(x)
        return logits.to(x.dtype)

    return logits_of


def compiled(logits_of: Logits, *, of_images: bool = False, is_recorded: bool = False) -> Logits:
    """`logits_of` compiled, once for each shape of images; the model's names stay as they are.

    Compiled are only the forwards whose gradient for the weights is wanted or, with `of_images`,
    for the images; others, such as those without any gradient, run as they are. Random draws are
    those of `logits_of`.

    With `is_recorded` a GPU records the kernels and replays them. This needs a forward whose
    gradient is used before the next one, as in an attack, because the memory of both is reused.
    Weights must change in place. Torch compiles a limited number of forwards per process, of which
    experts and trials of one architecture share one, and leaves further ones as they are: the limit
    is raised to `N_COMPILED`.
    """
    torch.compiler.config.recompile_limit = max(torch.compiler.config.recompile_limit, N_COMPILED)
    fast = torch.compile(
        logits_of,
        dynamic=False,
        options={"triton.cudagraphs": is_recorded, "fallback_random": True},
    )

    def chosen(x: Tensor) -> Tensor:
        is_wanted = torch.is_grad_enabled() and x.requires_grad == of_images
        return (fast if is_wanted else logits_of)(x)

    return chosen


def frozen_twin(model: nn.Module) -> nn.Module:
    """A copy of the modules, in eval mode, that shares the model's weights without gradients.

    A compiled forward computes the gradients of all weights that require one, wanted or not. The
    twin follows the model as long as the model's parameters and buffers change in place, and as the
    twin's own forward reassigns none.
    """
    shared: dict[int, Tensor] = {id(buffer): buffer for buffer in model.buffers()}
    for parameter in model.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    return copy.deepcopy(model, shared).eval()
