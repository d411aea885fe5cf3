"""A sweep over scikit-learn's digits, which exports the model at the knee of its front."""

import sys

from generalist_core import short
from search import SweepConfig, export, load_export, sweep


def main(folder: str) -> None:
    """Search within 500,000 forward images, then choose one model."""
    result = sweep(SweepConfig(base=short(), trials=None, budget=5e5), folder)
    print(result.trials[["state", "best_natural", "best_robust"]])
    print(result.pick("knee").reason)
    export(result, "knee", f"{folder}/knee.pt")
    print(load_export(f"{folder}/knee.pt"))


if __name__ == "__main__":
    main(sys.argv[1])
