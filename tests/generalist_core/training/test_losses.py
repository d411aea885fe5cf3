"""Losses against the papers' formulas, written in probabilities instead of logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from generalist_core.config import MART, TRADES, CrossEntropy, Loss
from generalist_core.training.losses import boosted_cross_entropy, divergence, training_loss

SOURCE = torch.Generator().manual_seed(0)
CLEAN = 2 * torch.randn(7, 4, generator=SOURCE).double()
ADVERSARIAL = 2 * torch.randn(7, 4, generator=SOURCE).double()
Y = torch.tensor([0, 1, 2, 3, 0, 1, 2])
LOSSES: list[Loss] = [CrossEntropy(), TRADES(beta=3.0), MART(beta=2.0)]


def by_hand(loss: Loss, smoothing: float) -> float:
    """Zhang et al. 2019, eq. 5; Wang et al. 2020, eq. 11; image by image."""
    total = 0.0
    for clean, adversarial, y in zip(CLEAN.softmax(1), ADVERSARIAL.softmax(1), Y, strict=True):
        target = torch.full((4,), smoothing / 4, dtype=torch.float64)
        target[y] += 1 - smoothing
        kl = (clean * (clean / adversarial).log()).sum()
        if isinstance(loss, CrossEntropy):
            total += -(target * adversarial.log()).sum()
        elif isinstance(loss, TRADES):
            total += -(target * clean.log()).sum() + loss.beta * kl
        else:
            wrong = max(p for k, p in enumerate(adversarial) if k != y)
            boosted = -(target * adversarial.log()).sum() - (1 - wrong).log()
            total += boosted + loss.beta * kl * (1 - clean[y])
    return float(total / len(Y))


def evaluate(loss: Loss, clean: Tensor, adversarial: Tensor, y: Tensor, smoothing: float) -> Tensor:
    """The loss where images are their own logits."""
    return training_loss(loss, nn.Identity(), clean, adversarial, y, label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_losses_are_the_papers(loss: Loss, smoothing: float) -> None:
    found = evaluate(loss, CLEAN, ADVERSARIAL, Y, smoothing)
    assert found.item() == pytest.approx(by_hand(loss, smoothing), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_gradients_flow_through_clean_and_adversarial_images(loss: Loss) -> None:
    clean, adversarial = CLEAN.clone().requires_grad_(), ADVERSARIAL.clone().requires_grad_()
    inputs = (adversarial,) if isinstance(loss, CrossEntropy) else (clean, adversarial)

    def of(*tensors: Tensor) -> Tensor:
        return evaluate(loss, tensors[0], tensors[-1], Y, 0.1)

    assert torch.autograd.gradcheck(of, inputs)
    gradients = torch.autograd.grad(of(*inputs), inputs)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_cross_entropy_takes_class_probabilities() -> None:
    soft = CLEAN.softmax(1)
    found = evaluate(CrossEntropy(), CLEAN, ADVERSARIAL, soft, 0.0)
    torch.testing.assert_close(found, -(soft * ADVERSARIAL.log_softmax(1)).sum(1).mean())


def test_without_its_weight_trades_is_clean_cross_entropy() -> None:
    natural = evaluate(CrossEntropy(), CLEAN, CLEAN, Y, 0.0)
    torch.testing.assert_close(evaluate(TRADES(beta=0.0), CLEAN, ADVERSARIAL, Y, 0.0), natural)


def test_the_divergence_is_zero_only_between_equals() -> None:
    torch.testing.assert_close(divergence(CLEAN, CLEAN + 5), torch.zeros(7).double())
    assert (divergence(CLEAN, ADVERSARIAL) > 0).all()


@pytest.mark.parametrize("scale", [50.0, 500.0])
def test_confident_predictions_give_finite_losses_and_gradients(scale: float) -> None:
    for loss in LOSSES:
        logits = (scale * CLEAN).float().requires_grad_()
        value = evaluate(loss, logits, (scale * ADVERSARIAL).float(), Y, 0.0) + (
            boosted_cross_entropy(logits, Y, 0.0)
        )
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert gradient.isfinite().all()
