"""An example of each command, which its help ends with."""

from __future__ import annotations

PROGRAM = "generalist-search"

EXAMPLES = {
    "train": "train --data digits --epochs 8 --out runs/one",
    "sweep": r"""sweep --data cifar10 --data-root data --download --preset paper \
      --space full --trials 100 --gpus-per-trial 0.5 --out runs/cifar10""",
    "resume": "resume runs/digits --trials 40",
    "front": "front runs/digits --pick 'natural>=0.85'",
    "export": "export runs/digits --pick knee --to model.pt",
    "explain": "explain runs/digits 0003",
    "report": "report runs/digits --reference published.csv",
    "verify": "verify runs/digits --attacks pgd-20,autoattack --n-images 500",
    "evaluate": "evaluate model.pt --data digits --attacks fgsm,pgd-20 --split test",
}


def example(command: str) -> str:
    """What the help of a command ends with."""
    return f"example:\n  {PROGRAM} {EXAMPLES[command]}\n"
