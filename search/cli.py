"""The command line, `generalist-search`. Results go to standard output, all else to standard error.

Exit code 0 only if the work was done, 1 if it was not, 2 for bad usage or input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from generalist_core.validation import InvalidConfigError
from search.options import add_config, build_config

DESCRIPTION = (
    """Search for the best natural-robust trade-offs of Generalist adversarial training."""
)

EXAMPLES = """examples:
  generalist-search sweep --data digits --trials 8 --out runs/digits
  generalist-search sweep --data cifar10 --data-root data --download --preset paper \\
      --space full --trials 100 --gpus-per-trial 0.5 --out runs/cifar10
  generalist-search front runs/digits --json
  tensorboard --logdir runs/digits/tensorboard
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return _fail("Interrupted.", 1)
    except (InvalidConfigError, OSError) as error:
        if options.debug:
            raise
        return _fail(str(error), 2)


def _fail(message: str, code: int) -> int:
    print(f"generalist-search: {message}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="generalist-search",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands, common)
    _add_sweep(commands, common)
    _add_front(commands, common)
    _add_report(commands, common)
    return parser


def _add_train(commands: Any, common: argparse.ArgumentParser) -> None:
    train = commands.add_parser(
        "train", parents=[common], help="train one configuration, without Ray"
    )
    add_config(train)
    train.add_argument("--json", action="store_true", help="print the released points as JSON")
    train.set_defaults(run=_train)


def _add_sweep(commands: Any, common: argparse.ArgumentParser) -> None:
    sweep = commands.add_parser("sweep", parents=[common], help="search a space on Ray")
    add_config(sweep)
    add = sweep.add_argument
    add(
        "--space",
        default="full",
        help="smoke, mixing, experts, full, or FILE.py:FUNCTION (runs that file); default full",
    )
    add("--trials", type=int, default=20, metavar="N", help="how many trainings; default 20")
    add(
        "--sampler",
        default="tpe",
        help="tpe, nsga2, nsga3, gp, random or quasi-random; default tpe",
    )
    add("--search-seed", type=int, default=0, metavar="N", help="seed of the sampler; default 0")
    add("--workers", type=int, metavar="N", help="trials at a time; default as many as fit")
    add("--cpus-per-trial", type=float, default=1.0, metavar="X", help="CPUs a trial; default 1")
    add(
        "--gpus-per-trial",
        type=float,
        default=0.0,
        metavar="X",
        help="GPUs a trial, may be a fraction; default 0",
    )
    add("--time-budget", type=float, metavar="S", help="stop after so many seconds")
    add("--storage", metavar="URL", help="Optuna storage; default a journal in the output folder")
    add(
        "--address",
        metavar="HOST:PORT",
        help="join this Ray cluster, or `auto`; default a local one",
    )
    add("--json", action="store_true", help="print the front as JSON")
    sweep.set_defaults(run=_sweep)


def _add_front(commands: Any, common: argparse.ArgumentParser) -> None:
    front = commands.add_parser("front", parents=[common], help="print a sweep's front")
    front.add_argument("folder", type=Path, metavar="OUT")
    front.add_argument("--json", action="store_true", help="print the front as JSON")
    front.set_defaults(run=_front)


def _add_report(commands: Any, common: argparse.ArgumentParser) -> None:
    report = commands.add_parser("report", parents=[common], help="write front.csv, .json and .png")
    report.add_argument("folder", type=Path, metavar="OUT")
    report.set_defaults(run=_report)


def _train(options: argparse.Namespace) -> int:
    from rich.console import Console

    from generalist_core.datasets import load_dataset
    from search.files import create_folder
    from search.monitor import TrialWriter
    from search.trial import TrialRun, point_to_dict

    config, console = build_config(options), Console(stderr=True)
    data = load_dataset(config.data)
    create_folder(options.out)
    trial = TrialRun(options.out, config, data)
    writer = TrialWriter(options.out / "tensorboard")
    while not trial.is_done:
        metrics = trial.advance()
        writer.write(metrics)
        losses = [
            f"{k} {v:.3f}" for k, v in metrics.items() if k.startswith(("loss/", "accuracy/global"))
        ]
        console.print(f"epoch {metrics['epoch']:>3}/{config.epochs}  {'  '.join(losses)}")
    points = [point_to_dict(point) for point in trial.release()]
    trial.save(options.out / "checkpoint.pt")
    writer.close()
    if options.json:
        print(json.dumps({"points": points, "forward_images": trial.trainer.forward_images}))
    else:
        for point in points:
            accuracies = "  ".join(f"{k} {100 * v:.1f} %" for k, v in point["accuracies"].items())
            print(f"mixing ratio {point['ratio']}: {accuracies}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from search.sweep import SweepConfig, sweep

    config = SweepConfig(
        config=build_config(options),
        space=options.space,
        trials=options.trials,
        sampler=options.sampler,
        seed=options.search_seed,
        workers=options.workers,
        cpus_per_trial=options.cpus_per_trial,
        gpus_per_trial=options.gpus_per_trial,
        time_budget_s=options.time_budget,
        storage=options.storage,
        address=options.address,
    )
    finished = sweep(config, options.out)
    if finished.counts.completed == 0:
        reasons = sorted(set(finished.ledger.failures().values()))
        return _fail(f"No trial succeeded. Reasons: {'; '.join(reasons) or 'none ended'}", 1)
    _print_front(finished.ledger, as_json=options.json)
    if not options.json:
        print(f"Report: {options.out}/front.png, .csv and .json; weights in {options.out}/models")
        print(f"Watch:  tensorboard --logdir {options.out}/tensorboard")
    return 0


def _front(options: argparse.Namespace) -> int:
    from search.sweep import open_sweep

    _print_front(open_sweep(options.folder).ledger, as_json=options.json)
    return 0


def _report(options: argparse.Namespace) -> int:
    from search.report import write_report
    from search.sweep import open_sweep

    write_report(options.folder, open_sweep(options.folder).ledger)
    print(f"{options.folder}/front.csv, front.json, front.png")
    return 0


def _print_front(ledger: Any, *, as_json: bool) -> None:
    from rich.console import Console

    from search.front import Front
    from search.report import front_document, front_table

    if as_json:
        print(json.dumps(front_document(ledger)))
        return
    front, counts, cost = (
        Front.of(ledger.points(), ledger.objectives),
        ledger.counts(),
        ledger.cost(),
    )
    Console(width=None if sys.stdout.isatty() else 100).print(front_table(front))
    print(
        f"Hypervolume {front.hypervolume:.4f} above (0, 0); "
        f"{counts.completed} trials completed, {counts.failed} failed; "
        f"{cost['forward_images']:.3g} forward images, {cost['seconds']:.0f} s of training"
    )
