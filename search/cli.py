"""The command line, `generalist-search`. Results go to standard output, all else to standard error.

Exit code 0 only if the work was done, 1 if it was not, 2 for bad usage or input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from generalist_core.config import NORMS
from generalist_core.validation import EvaluationError, InvalidConfigError, require
from search.errors import WorkerError
from search.options import add_config, add_frame, add_suite, build_config, build_suite

if TYPE_CHECKING:
    from generalist_core.config import TrainConfig
    from search.cluster import Resources
    from search.early_stopping import Halving
    from search.ledger import Floor
    from search.stopping_when_done import StopWhenDone
    from search.sweep import Sweep
    from search.warmups import WarmupConfig

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


WARM_START = "begin with the points of an earlier sweep's folder, or of a CSV"
WITHIN_COST = "when the hypervolume grew by no more than the fraction F within C forward images"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return _fail("Interrupted.", 1)
    except (InvalidConfigError, OSError, EvaluationError, WorkerError) as error:
        if options.debug:
            raise
        return _fail(str(error), 2 if isinstance(error, InvalidConfigError | OSError) else 1)


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
    _add_verify(commands, common)
    _add_evaluate(commands, common)
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
    add("--time-budget", type=float, metavar="S", help="stop after so many seconds")
    add("--repeats", type=int, default=0, metavar="R", help="train the front again with R seeds")
    add("--storage", metavar="URL", help="Optuna storage; default a journal in the output folder")
    add(
        "--at-least",
        action="append",
        default=[],
        metavar="OBJECTIVE=X",
        help="region of interest, such as natural=0.8; the hypervolume counts from there",
    )
    add(
        "--branches",
        type=int,
        metavar="N",
        help="try N co-trainings on each warm-up, and more where they pay",
    )
    add(
        "--early-stopping",
        type=float,
        metavar="ETA",
        help="stop trials that are not in the best 1/ETA of their rung",
    )
    add("--warmups", metavar="FOLDER", help="share warm-ups with sweeps that name it too")
    add("--no-sharing", action="store_true", help="let every trial train its own warm-ups")
    add("--warm-start", action="append", default=[], metavar="PATH", help=WARM_START)
    add("--min-growth", type=float, metavar="F", help="with --within-cost: end the sweep early")
    add("--within-cost", type=float, metavar="C", help=WITHIN_COST)
    _add_resources(sweep)
    add("--json", action="store_true", help="print the front as JSON")
    sweep.set_defaults(run=_sweep)


def _add_verify(commands: Any, common: argparse.ArgumentParser) -> None:
    verify = commands.add_parser(
        "verify", parents=[common], help="measure a front again, on test images, by AutoAttack"
    )
    verify.add_argument("folder", type=Path, metavar="OUT")
    add_suite(verify, attacks="pgd-20,autoattack")
    verify.add_argument("--ray", action="store_true", help="spread the points over Ray's workers")
    _add_resources(verify)
    verify.add_argument("--json", action="store_true", help="print the result as JSON")
    verify.set_defaults(run=_verify)


def _add_evaluate(commands: Any, common: argparse.ArgumentParser) -> None:
    evaluate = commands.add_parser(
        "evaluate", parents=[common], help="run the attack suite on any saved model"
    )
    evaluate.add_argument("file", type=Path, metavar="MODEL", help="a state dict saved by torch")
    add_frame(evaluate)
    add_suite(evaluate, attacks="pgd-20,autoattack")
    add = evaluate.add_argument
    add("--norm", choices=NORMS, help="default that of the preset or file: linf")
    add("--split", default="test", choices=("test", "validation"), help="default test")
    add(
        "--trust",
        action="store_true",
        help="load a whole pickled module too; this runs code that the file holds",
    )
    add("--out", type=Path, metavar="FILE", help="store progress here, and continue from it")
    add("--json", action="store_true", help="print the result as JSON")
    evaluate.set_defaults(run=_evaluate)


def _add_resources(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("resources").add_argument
    add("--workers", type=int, metavar="N", help="trials at a time; default as many as fit")
    add("--cpus-per-trial", type=float, default=1.0, metavar="X", help="CPUs a trial; default 1")
    add(
        "--gpus-per-trial",
        type=float,
        default=0.0,
        metavar="X",
        help="GPUs a trial, may be a fraction; default 0",
    )
    add(
        "--address",
        metavar="HOST:PORT",
        help="join this Ray cluster, or `auto`; default a local one",
    )


def _resources(options: argparse.Namespace) -> Resources:
    from search.cluster import Resources

    return Resources(
        cpus_per_trial=options.cpus_per_trial,
        gpus_per_trial=options.gpus_per_trial,
        workers=options.workers,
        address=options.address,
    )


def _floor(text: str) -> Floor:
    from search.ledger import Floor

    objective, _, value = text.partition("=")
    try:
        return Floor(objective=objective, accuracy=float(value))
    except InvalidConfigError:
        raise
    except ValueError as error:
        cure = "Write it as natural=0.8."
        raise InvalidConfigError(
            f"`--at-least` must be OBJECTIVE=X, but got {text!r}. {cure}"
        ) from error


def _store(folder: str | None) -> WarmupConfig | None:
    from search.warmups import WarmupConfig

    return WarmupConfig(folder=str(Path(folder).absolute())) if folder else None


def _halving(options: argparse.Namespace, config: TrainConfig) -> Halving | None:
    """Rungs from a quarter of the run, each half as far again as the one before."""
    from search.early_stopping import Halving

    if options.early_stopping is None:
        return None
    first = max(1, config.epochs // 4)
    return Halving(eta=options.early_stopping, first_rung=first, growth=1.5)


def _stop_when(options: argparse.Namespace) -> StopWhenDone | None:
    from search.stopping_when_done import StopWhenDone

    growth, cost = options.min_growth, options.within_cost
    both = (growth is None) == (cost is None)
    require(both, "--min-growth and --within-cost go together", f"{growth} and {cost}")
    return StopWhenDone(min_growth=growth, within_cost=cost) if growth is not None else None


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
    from search.proposer import Branching
    from search.sweep import SweepConfig, sweep

    config = build_config(options)
    request = SweepConfig(
        config=config,
        space=options.space,
        trials=options.trials,
        sampler=options.sampler,
        seed=options.search_seed,
        resources=_resources(options),
        time_budget_s=options.time_budget,
        repeats=options.repeats,
        storage=options.storage,
        at_least=tuple(_floor(text) for text in options.at_least),
        stop_when=_stop_when(options),
        warm_start=tuple(options.warm_start),
        shares_warmups=not options.no_sharing,
        warmups=_store(options.warmups),
        branching=Branching(first=options.branches) if options.branches else None,
        early_stopping=_halving(options, config),
    )
    finished = sweep(request, options.out)
    if finished.counts.completed == 0:
        reasons = sorted(set(finished.ledger.failures().values()))
        return _fail(f"No trial succeeded. Reasons: {'; '.join(reasons) or 'none ended'}", 1)
    _print_front(finished, as_json=options.json)
    if not options.json:
        print(f"Report: {options.out}/front.png, .csv and .json; weights in {options.out}/models")
        print(f"Watch:  tensorboard --logdir {options.out}/tensorboard")
    return 0


def _front(options: argparse.Namespace) -> int:
    from search.sweep import open_sweep

    _print_front(open_sweep(options.folder), as_json=options.json)
    return 0


def _report(options: argparse.Namespace) -> int:
    from search.report import write_report
    from search.sweep import open_sweep

    write_report(options.folder, open_sweep(options.folder).ledger)
    print(f"{options.folder}/front.csv, front.json, front.png")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from rich.console import Console

    from search.sweep import open_sweep
    from search.verify import VerifyConfig, verified_table, verify

    request = VerifyConfig(
        attacks=tuple(options.attacks.split(",")),
        n_images=options.n_images,
        batch_size=options.attack_batch_size,
        seed=options.attack_seed,
    )
    resources = _resources(options) if options.ray else None
    document = verify(open_sweep(options.folder), request, resources=resources)
    if options.json:
        print(json.dumps(document))
        return 0
    Console(width=None if sys.stdout.isatty() else 120).print(verified_table(document))
    worth = document["hypervolume"]
    print(
        f"Hypervolume {worth['validation']:.4f} on validation, {worth['test']:.4f} on test; "
        f"{len(document['lost_their_place'])} points lost their place; "
        f"{document['seconds']:.0f} s. Details: {options.folder}/verified.json"
    )
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from rich.console import Console

    from generalist_core.datasets import load_dataset
    from generalist_core.device import resolve_device
    from search.evaluate import (
        empty_model,
        evaluate_resumably,
        load_model,
        suite_document,
        suite_table,
    )

    config = build_config(options)
    suite = build_suite(options, config)
    data, device = load_dataset(config.data), resolve_device(config.device)
    model = load_model(options.file, empty_model(config, data, None), trusted=options.trust)
    split = data.validation if options.split == "validation" else data.test
    assert split is not None
    result = evaluate_resumably(model.to(device), split.to(device), suite, place=options.out)
    document = suite_document(result)
    if options.json:
        print(json.dumps(document))
        return 0
    Console(width=None if sys.stdout.isatty() else 100).print(suite_table(document))
    for finding in document["findings"]:
        print(f"finding: {finding['name']}: {finding['message']}")
    for name, reason in document["skipped"].items():
        print(f"left out: {name}: {reason}")
    return 0


def _print_front(sweep: Sweep, *, as_json: bool) -> None:
    from rich.console import Console

    from search.report import front_document, front_table

    if as_json:
        print(json.dumps(front_document(sweep.folder, sweep.ledger)))
        return
    front, counts, cost = sweep.front, sweep.counts, sweep.ledger.cost()
    Console(width=None if sys.stdout.isatty() else 100).print(front_table(sweep.folder, front))
    print(
        f"Hypervolume {front.hypervolume:.4f} above (0, 0); "
        f"{counts.completed} trials completed, {counts.failed} failed; "
        f"{cost['forward_images']:.3g} forward images, {cost['seconds']:.0f} s of training"
    )
