"""A sweep over scikit-learn's digits, the knee of its front, and that model in a file."""

import sys

from generalist_core import short
from search import SweepConfig, export, load_export, sweep


def main(folder: str) -> None:
    """Four short trainings; then one decision."""
    found = sweep(SweepConfig(base=short(epochs=6), space="mixing", trials=4), folder)
    print(found.trials[["state", "best_natural", "best_robust"]])
    print(found.pick("knee").reason)
    export(found, "knee", f"{folder}/knee.pt")
    print(load_export(f"{folder}/knee.pt"))


if __name__ == "__main__":
    main(sys.argv[1])
