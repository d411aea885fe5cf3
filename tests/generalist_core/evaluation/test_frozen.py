"""A frozen model computes what the model does, and nothing flows back into the model."""

from __future__ import annotations

import torch
from torch import nn

from generalist_core.evaluation.frozen import frozen
from generalist_core.evaluation.laws import untouched
from tests.helpers.problems import random_images


def test_a_frozen_copy_is_float32_in_eval_mode_and_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3), nn.Dropout()).double().train()
    model(random_images(2, 2, 4, 4)).sum().backward()
    with untouched(model):
        copied = frozen(model, torch.device("cpu"))
        x = random_images(5, 2, 4, 4, dtype=torch.float32).requires_grad_()
        logits = copied(x)
        logits.sum().backward()
        copied[1].weight.zero_()
    assert not any(module.training for module in copied.modules())
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in copied.parameters())
    assert all(p.grad is None for p in copied.parameters())
    assert x.grad is not None
    torch.testing.assert_close(logits.double(), model.eval()(x.double()), atol=1e-6, rtol=1e-5)
