"""BatchNorm folded into the convolutions before it: one operation where there were two.

In eval mode a BatchNorm is a scale and a shift per channel, which the convolution can take over
exactly. An attack evaluates the same weights many times and folds them once.
"""

from __future__ import annotations

import logging
from collections import Counter
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

log = logging.getLogger(__name__)

UNTRACEABLE = (AssertionError, KeyError, RuntimeError, TypeError, ValueError)
"""What `torch.fx` and code that needs real tensors raise on symbolic ones; see `folded`."""


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


def folded(model: nn.Module, dtype: torch.dtype | None = None) -> Folded | None:
    """The folded form of a model, to be refreshed before use; None if nothing can be folded.

    Its convolutions are kept in `dtype`, or the model's own if None: an attack under autocast then
    need not cast them at each of its steps.

    Folded are the convolutions that are used once and read by one BatchNorm alone, in a model whose
    `forward` can be traced with symbolic images by torch.fx. It cannot be traced if it needs values
    or shapes as numbers. Then torch.fx raises TraceError (a ValueError; control flow, iteration,
    unpacking) or RuntimeError (`len`); Python and torch raise TypeError (`int`, `range`, item
    assignment), KeyError (a dictionary indexed by shape or device), RuntimeError or ValueError (a
    function that accepts only tensors), and NotImplementedError (a RuntimeError) or AssertionError
    (a compiled or scripted model, an `assert isinstance`). In these cases the reason is logged and
    None is returned, as the model itself runs; any other exception passes.
    """
    was_training = model.training
    try:
        graph = fx.Tracer().trace(model.eval())
    except UNTRACEABLE as error:
        log.info("BatchNorm is not folded: %s: %s", type(error).__name__, error)
        return None
    finally:
        model.train(was_training)
    parts: dict[str, Any] = {
        str(node.target): attrgetter(str(node.target))(model)
        for node in graph.nodes
        if node.op in ("call_module", "get_attr")
    }
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


def _foldable(graph: fx.Graph, parts: dict[str, Any]) -> list[tuple[fx.Node, fx.Node]]:
    """The convolutions that are called once and read by one BatchNorm alone, each with that one."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    n_calls = Counter(node.target for node in calls)
    pairs = []
    for norm in calls:
        conv = norm.args[0] if norm.args else None
        if not (isinstance(conv, fx.Node) and conv.op == "call_module"):
            continue
        fits = type(parts[str(conv.target)]) is nn.Conv2d and len(conv.users) == 1
        known = isinstance(module := parts[str(norm.target)], nn.BatchNorm2d)
        if fits and known and module.track_running_stats and n_calls[conv.target] == 1:
            pairs.append((conv, norm))
    return pairs
