"""Which values of losses and of mixed images are refused."""

from __future__ import annotations

from generalist_core.config import MART, TRADES, CutMix, MixUp
from tests.helpers.refused import Broken, refusal_of

BROKEN: list[Broken] = [
    (TRADES, {"beta": -1.0}, "beta >= 0", "beta=-1.0"),
    (MART, {"beta": -1.0}, "beta >= 0", "beta=-1.0"),
    (MixUp, {"alpha": 0.0}, "alpha > 0", "alpha=0.0"),
    (CutMix, {"alpha": -1.0}, "alpha > 0", "alpha=-1.0"),
]

test_a_broken_law_is_stated_with_what_broke_it = refusal_of(BROKEN)
