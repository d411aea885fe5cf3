"""Which values of attacks are refused."""

from __future__ import annotations

from generalist_core.config import FGSM, NFGSM, PGD, MultiTargeted, SeveralAttacks
from tests.helpers.refused import Broken, refusal_of

BROKEN: list[Broken] = [
    (FGSM, {"epsilon": -0.1}, "epsilon >= 0", "epsilon=-0.1"),
    (
        FGSM,
        {"epsilon": 8.0},
        "epsilon <= 1",
        "epsilon=8.0 for linf. Images live in [0, 1]; did you mean 8/255?",
    ),
    (FGSM, {"epsilon": float("nan")}, "`epsilon` must be a finite number", "epsilon=nan"),
    (FGSM, {"epsilon": 0.1, "norm": "l3"}, "`norm` must be one of linf, l2, l1", "'l3'"),
    (NFGSM, {"epsilon": 1.1}, "epsilon <= 1", "epsilon=1.1 for linf"),
    (NFGSM, {"epsilon": 0.1, "noise_scale": -1.0}, "noise_scale >= 0", "noise_scale=-1.0"),
    (
        NFGSM,
        {"epsilon": 0.1, "relative_step_size": 0.0},
        "relative_step_size > 0",
        "relative_step_size=0.0",
    ),
    (PGD, {"epsilon": 2.0}, "epsilon <= 1", "epsilon=2.0 for linf"),
    (PGD, {"epsilon": 0.1, "steps": 0}, "steps > 0", "steps=0"),
    (
        PGD,
        {"epsilon": 0.1, "relative_step_size": -1.0},
        "relative_step_size > 0",
        "relative_step_size=-1.0",
    ),
    (PGD, {"epsilon": 0.1, "momentum": -0.5}, "momentum >= 0", "momentum=-0.5"),
    (PGD, {"epsilon": 0.1, "loss": "hinge"}, "`loss` must be one of", "'hinge'"),
    (
        PGD,
        {"epsilon": 0.1, "loss": "kl", "random_start": False},
        "`random_start` must be True with loss='kl'",
        "random_start=False",
    ),
    (MultiTargeted, {"epsilon": 2.0}, "epsilon <= 1", "epsilon=2.0 for linf"),
    (MultiTargeted, {"epsilon": 0.1, "steps": 0}, "steps > 0", "steps=0"),
    (MultiTargeted, {"epsilon": 0.1, "n_targets": 0}, "n_targets > 0", "n_targets=0"),
    (SeveralAttacks, {"parts": (PGD(epsilon=0.1),)}, "`parts` must be two or more", "got 1."),
    (
        SeveralAttacks,
        {"parts": (PGD(epsilon=0.1), PGD(epsilon=0.1, steps=3)), "combine": "random"},
        "`parts` must cost the same with combine='random'",
        "steps=[10, 3]",
    ),
    (
        SeveralAttacks,
        {"parts": (PGD(epsilon=0.1), PGD(epsilon=0.1, loss="kl")), "combine": "adaptive"},
        "`parts` must cost the same with combine='adaptive'",
        "loss=['cross-entropy', 'kl']",
    ),
    *(
        (
            SeveralAttacks,
            {"parts": (PGD(epsilon=0.1), other), "combine": "steepest"},
            "same steps, loss='cross-entropy' and momentum=0 with combine='steepest'",
            message,
        )
        for other, message in (
            (PGD(epsilon=0.1, steps=3), "steps=[10, 3]"),
            (PGD(epsilon=0.1, loss="margin"), "'margin'"),
            (PGD(epsilon=0.1, momentum=0.5), "momentum=[0.0, 0.5]"),
        )
    ),
    (
        SeveralAttacks,
        {"parts": (PGD(epsilon=0.1),) * 2, "combine": "mean"},
        "`combine` must be one of worst, steepest, average, random",
        "'mean'",
    ),
]

test_a_broken_law_is_stated_with_what_broke_it = refusal_of(BROKEN)
