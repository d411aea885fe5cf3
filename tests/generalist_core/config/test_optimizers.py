"""Which values of optimizers are refused."""

from __future__ import annotations

from generalist_core.config import SGD, Adam, AdamW, RMSprop
from tests.helpers.refused import Broken, refusal_of

BROKEN: list[Broken] = [
    *(
        (kind, bad, law, got)
        for kind in (SGD, Adam, AdamW, RMSprop)
        for bad, law, got in (
            ({"lr": 0.0}, "lr > 0", "lr=0.0"),
            ({"weight_decay": -1.0}, "weight_decay >= 0", "weight_decay=-1.0"),
        )
    ),
    *(
        (kind, {beta: 1.0}, f"0 <= {beta} < 1", f"{beta}=1.0")
        for kind in (Adam, AdamW)
        for beta in ("beta1", "beta2")
    ),
    (SGD, {"momentum": 1.0}, "0 <= momentum < 1", "momentum=1.0"),
    (SGD, {"momentum": 0.0, "nesterov": True}, "momentum > 0", "momentum=0 with nesterov=True"),
    (RMSprop, {"alpha": 1.0}, "0 <= alpha < 1", "alpha=1.0"),
    (RMSprop, {"momentum": -0.1}, "0 <= momentum < 1", "momentum=-0.1"),
]

test_a_broken_law_is_stated_with_what_broke_it = refusal_of(BROKEN)
