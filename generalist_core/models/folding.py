"""BatchNorm folded into the convolutions before it: one operation where there were two.

In eval mode a BatchNorm is a scale and a shift per channel, which the convolution can take over
exactly. An attack evaluates the same weights many times and folds them once. A model is folded only
if its folded form was seen to be the same function; see `folded`.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from generalist_core.device import full_precision
from generalist_core.models.build import Shape
from generalist_core.models.forms import (
    Logits,
    is_same_function,
    say_once,
    trial_images,
    tried_once,
)
from generalist_core.models.state import copied, moved
from generalist_core.randomness import global_seed

NOT_FOLDED = "BatchNorm is not folded"

N_IMAGES = 2


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
    buffers. So the folded form is used only if it is seen to be the same function, see
    `generalist_core.models.forms`. Otherwise, one warning for each class of model says why, and
    None is returned, as the model itself runs. This is tried in float64: in float32, rounding
    decides which of nearly equal values a max-pooling takes, and GoogLeNet's gradients differ by
    15 %.
    """
    if not _has_pairs(model):
        return None
    if names := _changed_parts(model):
        say_once(model, NOT_FOLDED, f"{names[0]} has a hook or a parametrization")
    like = next(part for part in model.modules() if isinstance(part, nn.Conv2d)).weight
    exact = moved(copied(model), like.device, torch.float64)
    images = trial_images(N_IMAGES, shape, like.device, torch.float64)
    with full_precision(like.device), global_seed(0, like.device):
        try_out = partial(
            is_same_function, exact, lambda net: net, _folded_at_each_call, images, what=NOT_FOLDED
        )
        if not tried_once(exact, images, NOT_FOLDED, try_out):
            return None
        return fold(model, dtype)


def _folded_at_each_call(model: nn.Module) -> Logits:
    form = fold(model, None)
    return refreshed(form or model, form)


def refreshed(logits_of: Logits, form: Folded | None) -> Logits:
    """A forward that has a folded form, if there is one, take the model's present weights first."""

    def logits_of_present_weights(x: Tensor) -> Tensor:
        if form is not None:
            form.refresh()
        return logits_of(x)

    return logits_of_present_weights


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


def fold(model: nn.Module, dtype: torch.dtype | None) -> Folded | None:
    """The folded form, whether it is the same function or not; None if nothing can be folded."""
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
    return Folded(_of_one_class(fx.GraphModule(rest, graph)), convs) if convs else None


_CLASSES: dict[object, type[fx.GraphModule]] = {}


def _of_one_class(module: fx.GraphModule) -> fx.GraphModule:
    """`module`, of the class that graphs with the same code and functions have in this process.

    torch.fx makes a class for each graph, and a compiled forward is compiled anew for each class.
    """
    functions = module.graph.python_code("self").globals
    key = module.code, tuple(sorted((name, id(value)) for name, value in functions.items()))
    module.__class__ = _CLASSES.setdefault(key, type(module))
    return module


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
