"""BatchNorm folded into the convolutions before it: one operation where there were two.

In eval mode a BatchNorm is a scale and a shift per channel, which the convolution can take over
exactly. An attack evaluates the same weights many times and folds them once. A model is folded only
if its folded form was seen to be the same function; see `folded`.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from generalist_core.device import full_precision
from generalist_core.models.build import Shape
from generalist_core.randomness import global_seed

log = logging.getLogger(__name__)

UNTRACEABLE = (AssertionError, LookupError, RuntimeError, TypeError, ValueError)
"""What `torch.fx` and code that needs real tensors raise on symbolic ones; see `folded`."""


N_IMAGES = 2

GRADIENT_TOLERANCE = 0.01
"""Relative; rounding may move an activation across the kink of a ReLU."""


class FoldedConv(nn.Module):
    """A convolution and the BatchNorm on it, as one convolution."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.folded_parts = (conv, norm)
        weight = torch.empty_like(conv.weight.detach(), dtype=dtype)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", weight.new_empty(conv.out_channels), persistent=False)

    def refresh(self) -> None:
        """Compute weight and bias from the present state of both."""
        conv, norm = self.folded_parts
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        scale = scale * norm.weight if norm.affine else scale
        shift = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
        torch.mul(conv.weight, scale[:, None, None, None], out=self.weight)
        bias = shift * scale
        self.bias.copy_(bias + norm.bias if norm.affine else bias)

    def forward(self, x: Tensor) -> Tensor:
        """The BatchNorm of the convolution of `x`."""
        out: Tensor = self.folded_parts[0]._conv_forward(x, self.weight, self.bias)
        return out


class Folded(nn.Module):
    """A model in eval mode, with one convolution for each pair with a BatchNorm; see `folded`.

    It shares its other modules with the model, and follows the model's weights by `refresh`.
    """

    def __init__(self, graph: fx.GraphModule, convs: list[FoldedConv]) -> None:
        super().__init__()
        self.graph = graph
        self.convs = convs

    @torch.no_grad()
    def refresh(self) -> None:
        """Fold the model's present weights."""
        for conv in self.convs:
            conv.refresh()

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (n, classes), equal to the model's in eval mode up to rounding."""
        logits: Tensor = self.graph(x)
        return logits


def up_to_date(form: Folded | None, model: nn.Module) -> nn.Module:
    """The folded form with the model's present weights; the model if there is no folded form."""
    if form is None:
        return model
    form.refresh()
    return form


def folded(model: nn.Module, shape: Shape, dtype: torch.dtype | None = None) -> Folded | None:
    """The folded form of a model of images (c, h, w), to be refreshed before use; or None.

    Its convolutions are kept in `dtype`, or the model's own if None: an attack under autocast then
    need not cast them at each of its steps.

    Folded are the convolutions that are used once and read by one BatchNorm alone, both without
    hooks, in a model whose `forward` can be traced with symbolic images by torch.fx. It cannot be
    traced if it needs values or shapes as numbers. Then torch.fx raises TraceError (a ValueError;
    control flow, iteration, unpacking) or RuntimeError (`len`); Python and torch raise TypeError
    (`int`, `range`, item assignment), KeyError (a dictionary indexed by shape or device),
    RuntimeError or ValueError (a function that accepts only tensors), and NotImplementedError (a
    RuntimeError) or AssertionError (a compiled or scripted model, an `assert isinstance`). Any
    other exception passes.

    A trace holds what the forward read or drew while it was traced, such as values computed from
    buffers. So a copy is folded first, trained for one forward, and given other weights and
    buffers: logits and gradients of two batches, each shown twice, must be the copy's own up to
    rounding. If anything of this fails, one warning for each class of model says why, and None is
    returned, as the model itself runs.
    """
    if not _has_pairs(model):
        return None
    if names := _changed_parts(model):
        _warn(model, f"{names[0]} has a hook or a parametrization")
    device = next(model.parameters()).device
    with full_precision(device), global_seed(0, device):
        try:
            trial = copy.deepcopy(model)
            form = _fold(trial, None)
            reason = _difference(trial, form, shape) if form is not None else None
        except UNTRACEABLE as error:
            form, reason = None, f"{type(error).__name__}: {error}"
        if reason is not None:
            _warn(model, reason)
        return _fold(model, dtype) if form is not None and reason is None else None


def _has_pairs(model: nn.Module) -> bool:
    kinds = {type(module) for module in model.modules()}
    return any(issubclass(kind, nn.Conv2d) for kind in kinds) and any(
        issubclass(kind, nn.BatchNorm2d) for kind in kinds
    )


def _changed_parts(model: nn.Module) -> list[str]:
    """The convolutions and BatchNorms that compute more than their class says."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
        and (_hooked(module) or parametrize.is_parametrized(module))
    ]


_warned: set[str] = set()


def _warn(model: nn.Module, reason: str) -> None:
    """Say once for each class of model why it, or a part of it, is not folded."""
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    if name not in _warned:
        _warned.add(name)
        log.warning("BatchNorm is not folded in %s: %s", name, reason)


def _fold(model: nn.Module, dtype: torch.dtype | None) -> Folded | None:
    """The folded form, whether it is the same function or not."""
    was_training, attributes = model.training, set(vars(model))
    try:
        graph = fx.Tracer().trace(model.eval())
        parts: dict[str, Any] = {
            str(node.target): attrgetter(str(node.target))(model)
            for node in graph.nodes
            if node.op in ("call_module", "get_attr")
        }
    finally:
        model.train(was_training)
        # the tracer stores tensors that the forward computed in the model itself
        for name in set(vars(model)) - attributes:
            delattr(model, name)
    convs: list[FoldedConv] = []
    for conv_node, norm_node in _foldable(graph, parts):
        conv = FoldedConv(parts[str(conv_node.target)], parts[str(norm_node.target)], dtype)
        name = f"folded_{len(convs)}"
        parts[name] = conv
        conv_node.target = name
        norm_node.replace_all_uses_with(conv_node)
        graph.erase_node(norm_node)
        convs.append(conv)
    used = {str(node.target) for node in graph.nodes}
    rest = {name: part for name, part in parts.items() if name in used}
    return Folded(fx.GraphModule(rest, graph), convs) if convs else None


def _difference(model: nn.Module, form: Folded, shape: Shape) -> str | None:
    """How a folded form differs from its model, which is changed for that; None if it does not."""
    like, source = form.convs[0].folded_parts[0].weight, torch.Generator().manual_seed(0)
    batches = torch.rand(2, N_IMAGES, *shape, generator=source).to(like.device, like.dtype)
    with torch.no_grad():
        model.train()(batches[0])
        model.eval()
        for tensor in {id(t): t for t in (*model.parameters(), *model.buffers())}.values():
            _change(tensor, source)
    form.refresh()
    for x in batches:
        calls = [[_forward_and_gradient(net, x) for net in (model, form)] for _ in range(2)]
        (logits, gradient), (of_form, gradient_of_form) = calls[0]
        (again, _), (of_form_again, _) = calls[1]
        rounding = torch.finfo(logits.dtype).eps ** 0.5
        if not _close(again, logits, rounding):
            return "its logits of the same images differ from call to call"
        if not all(_close(other, logits, rounding) for other in (of_form, of_form_again)):
            return "its folded form has other logits once weights and buffers have changed"
        if not _close(gradient_of_form, gradient, GRADIENT_TOLERANCE):
            return "its folded form has other gradients"
    return None


def _change(tensor: Tensor, source: torch.Generator) -> None:
    """Other values of the same kind: indices stay indices, and variances positive."""
    if tensor.is_floating_point() or tensor.is_complex():
        factor, summand = torch.rand(2, *tensor.shape, generator=source).to(tensor)
        tensor.mul_(0.7 + 0.6 * factor)
        # to add to matrices of weights would let deep models overflow; zeros are elsewhere
        if not isinstance(tensor, nn.Parameter) or tensor.ndim < 2:
            tensor.add_(0.1 * summand)
    elif tensor.ndim > 0:
        tensor.copy_(tensor.flatten().flip(0).view_as(tensor))
    elif tensor.dtype is torch.bool:
        tensor.logical_not_()
    else:
        tensor.sub_(tensor.sign())  # towards zero, where an index is still one


def _forward_and_gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        logits: Tensor = model(x)
        directions = torch.linspace(-1, 1, logits.numel(), dtype=x.dtype, device=x.device)
        (gradient,) = torch.autograd.grad((logits.flatten() * directions).sum(), x)
    return logits.detach(), gradient


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and bool((a - b).norm() <= tolerance * b.norm())


def _foldable(graph: fx.Graph, parts: dict[str, Any]) -> list[tuple[fx.Node, fx.Node]]:
    """The convolutions that are called once and read by one BatchNorm alone, each with that one."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    n_calls = Counter(node.target for node in calls)
    pairs = []
    for norm in calls:
        conv = norm.args[0] if norm.args else None
        if not (isinstance(conv, fx.Node) and conv.op == "call_module"):
            continue
        first, second = parts[str(conv.target)], parts[str(norm.target)]
        kinds = type(first) is nn.Conv2d and type(second) is nn.BatchNorm2d
        alone = len(conv.users) == 1 and n_calls[conv.target] == 1
        if (
            kinds
            and alone
            and second.track_running_stats
            and not (_hooked(first) or _hooked(second))
        ):
            pairs.append((conv, norm))
    return pairs


def _hooked(module: nn.Module) -> bool:
    """Whether calling a module, or its backward, does more than its class says."""
    hooks = (name for name in vars(module) if "_hooks" in name and "state_dict" not in name)
    return any(vars(module)[name] for name in hooks)
