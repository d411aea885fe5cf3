"""The time that the searcher takes to suggest trials and to record them, over 1,000 trials.

python -m benchmarks.suggestion_time [--trials 1000] [--sampler tpe] [--space full]

Every trial releases seven points. The figures are medians over the last hundred trials before each
mark: of a suggestion alone, and of everything else that the driver does for a trial. A journal is
written to disk as in a sweep. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.simulator import SimulatedTrainer, World
from generalist_core.config.presets import short
from generalist_core.training.evaluator import OperatingPoint
from search.config import SweepConfig
from search.scheduling.proposers import build_proposer
from search.study.ledger import Ledger
from search.study.samplers import BUILDERS, N_STARTUP, build_samplers
from search.study.storage import open_storage
from spaces import SPACES

RATIOS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
MARKS = (100, 300, 1000, 3000)


def main() -> None:
    """Print a line for each mark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--sampler", default="tpe", choices=BUILDERS)
    parser.add_argument("--space", default="full", choices=SPACES)
    options = parser.parse_args()
    base, world = short(), World()
    cost = {"forward_images": 1.0, "reused_forward_images": 0.0, "seconds": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        sampler = build_samplers(options.sampler, seed=0, n_startup=N_STARTUP)
        storage = open_storage(None, Path(folder) / "study.journal")
        ledger = Ledger(storage, base.evaluation.objective_names, sampler_of=sampler)
        request = SweepConfig(base=base, sampler=options.sampler)
        proposer = build_proposer(ledger, SPACES[options.space], request, world.images)
        asking, telling = [], []
        for trial in range(1, options.trials + 1):
            began = time.perf_counter()
            proposal = proposer.propose()
            asking.append(time.perf_counter() - began)
            trainer = SimulatedTrainer(proposal.config, world)
            trainer.epoch = proposal.config.epochs
            points: list[OperatingPoint] = trainer.release([proposal.mixing_ratio, *RATIOS])
            began = time.perf_counter()
            ledger.tell_released(proposal.trial, points, cost)
            proposer.completed(proposal.trial)
            telling.append(time.perf_counter() - began)
            if trial in MARKS:
                print(
                    f"{trial:>5} trials  {len(ledger.results.points()):>6} points  "
                    f"suggestion {1000 * statistics.median(asking[-100:]):6.1f} ms  "
                    f"told {1000 * statistics.median(telling[-100:]):6.1f} ms",
                    flush=True,
                )


if __name__ == "__main__":
    main()
