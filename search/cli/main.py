"""The command line, `generalist-search`. Results go to standard output, all else to standard error.

Exit code 0 only if the work was done, 1 if it was not, 2 for bad usage or input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from generalist_core.config import NORMS
from generalist_core.user_code import described
from generalist_core.validation import EvaluationError, InvalidConfigError
from search.cli.options import add_config, add_frame, add_suite
from search.errors import SweepInterruptedError, WorkerError

DESCRIPTION = (
    """Search for the best natural-robust trade-offs of Generalist adversarial training."""
)

TOP_EXAMPLES = """examples:
  generalist-search sweep --data digits --trials 8 --out runs/digits
  generalist-search sweep --data cifar10 --data-root data --download --preset paper \\
      --space full --trials 100 --gpus-per-trial 0.5 --out runs/cifar10
  generalist-search front runs/digits --json
  tensorboard --logdir runs/digits/tensorboard
"""

WARM_START = "begin with the points of an earlier sweep's folder, or of a CSV"

LOCAL = "run trials in this process, without Ray; with --debug a trial's first error is raised"

PICK = "knee, 'natural>=0.85', 'max robust', 'natural=0.3,robust=0.7' or TRIAL-RATIO"

WITHIN_COST = "when the hypervolume grew by no more than the fraction F within C forward images"

UNDONE = (EvaluationError, SweepInterruptedError, WorkerError)
"""Errors of work that was begun: exit code 1."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        from search.cli import commands

        return int(getattr(commands, options.run)(options))
    except KeyboardInterrupt:
        return _fail("Interrupted.", 1)
    except (InvalidConfigError, OSError, *UNDONE) as error:
        if options.debug:
            raise
        return _fail(_said(error), 2 if isinstance(error, InvalidConfigError | OSError) else 1)
    except Exception as error:
        if options.debug:
            raise
        return _fail(f"{described(error)}. See all of it with --debug.", 1)


def _said(error: Exception) -> str:
    """The message, that of the operating system in our grammar."""
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename or 'A file'} must be usable, but: {error.strerror}."
    return str(error)


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"{PROGRAM}: {message}\n")
    return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=TOP_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = _Parser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="say nothing but result and errors")
    common.add_argument(
        "--debug",
        action="store_true",
        help="show the traceback of an error, and what Ray and Optuna write",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands, common)
    _add_sweep(commands, common)
    _add_resume(commands, common)
    _add_front(commands, common)
    _add_export(commands, common)
    _add_explain(commands, common)
    _add_report(commands, common)
    _add_verify(commands, common)
    _add_evaluate(commands, common)
    return parser


def _command(
    commands: Any, common: argparse.ArgumentParser, name: str, about: str
) -> argparse.ArgumentParser:
    """The parser of a command; its help ends with an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        parents=[common],
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=example(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_train(commands: Any, common: argparse.ArgumentParser) -> None:
    train = _command(commands, common, "train", "train one configuration, without Ray")
    add_config(train)
    train.add_argument("--json", action="store_true", help="print the released points as JSON")
    train.add_argument(
        "--profile", action="store_true", help="first say where the time of a step goes"
    )
    train.set_defaults(run="run_train")


def _add_sweep(commands: Any, common: argparse.ArgumentParser) -> None:
    sweep = _command(commands, common, "sweep", "search a space on Ray")
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
        help="tpe, nsga2, nsga3, gp or random; default tpe",
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
        "--eta",
        type=float,
        default=3.0,
        help="stop trials early that are not in the best 1/ETA of their rung; default 3",
    )
    add("--no-early-stopping", action="store_true", help="train every trial to its end")
    add("--warmups", metavar="FOLDER", help="share warm-ups with sweeps that name it too")
    add("--no-sharing", action="store_true", help="let every trial train its own warm-ups")
    add("--warm-start", action="append", default=[], metavar="PATH", help=WARM_START)
    _add_limits(sweep)
    add(
        "--deterministic",
        action="store_true",
        help="the same points whatever the timing: trials in rounds, one a worker",
    )
    add("--min-growth", type=float, metavar="F", help="with --within-cost: end the sweep early")
    add("--within-cost", type=float, metavar="C", help=WITHIN_COST)
    _add_resources(sweep)
    add("--local", action="store_true", help=LOCAL)
    add("--json", action="store_true", help="print the front as JSON")
    sweep.set_defaults(run="run_sweep")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("failures").add_argument
    add("--max-failures", type=int, metavar="N", help="end the sweep after N failed trials")
    add("--fail-fast", action="store_true", help="end it after the first")
    add(
        "--max-retries",
        type=int,
        metavar="N",
        help="how often a trial whose worker died goes on elsewhere; default 3",
    )
    add("--trial-limit", type=float, metavar="S", help="fail a trial that trains longer")
    add(
        "--epoch-limit",
        type=float,
        metavar="S",
        help="end a worker that needs longer for an epoch: it hangs; default 3600",
    )
    add(
        "--accumulate",
        action="store_true",
        default=None,
        help="begin a trial that ran out of memory again, half a batch at a time",
    )


def _add_resume(commands: Any, common: argparse.ArgumentParser) -> None:
    resume = _command(commands, common, "resume", "go on with a sweep, however it ended")
    add = resume.add_argument
    add("folder", type=Path, metavar="OUT")
    add("--trials", type=int, metavar="N", help="how many trainings in all; default as before")
    add("--time-budget", type=float, metavar="S", help="stop after so many seconds")
    _add_limits(resume)
    _add_resources(resume, cpus=None, gpus=None)
    add("--local", action=argparse.BooleanOptionalAction, help=LOCAL)
    add("--json", action="store_true", help="print the front as JSON")
    resume.set_defaults(run="run_resume")


def _add_verify(commands: Any, common: argparse.ArgumentParser) -> None:
    verify = _command(
        commands, common, "verify", "measure a front again, on test images, by AutoAttack"
    )
    verify.add_argument("folder", type=Path, metavar="OUT")
    add_suite(verify, attacks="pgd-20,autoattack")
    verify.add_argument("--ray", action="store_true", help="spread the points over Ray's workers")
    _add_resources(verify)
    verify.add_argument("--json", action="store_true", help="print the result as JSON")
    verify.set_defaults(run="run_verify")


def _add_evaluate(commands: Any, common: argparse.ArgumentParser) -> None:
    evaluate = _command(commands, common, "evaluate", "run the attack suite on any saved model")
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
    evaluate.set_defaults(run="run_evaluate")


def _add_resources(
    parser: argparse.ArgumentParser, *, cpus: float | None = 1.0, gpus: float | None = 0.0
) -> None:
    add = parser.add_argument_group("resources").add_argument
    add("--workers", type=int, metavar="N", help="trials at a time; default as many as fit")
    add("--cpus-per-trial", type=float, default=cpus, metavar="X", help="CPUs a trial; default 1")
    add(
        "--gpus-per-trial",
        type=float,
        default=gpus,
        metavar="X",
        help="GPUs a trial, may be a fraction; default 0",
    )
    add(
        "--address",
        metavar="HOST:PORT",
        help="join this Ray cluster, or `auto`; default a local one",
    )


def _add_front(commands: Any, common: argparse.ArgumentParser) -> None:
    front = _command(commands, common, "front", "print a sweep's front")
    front.add_argument("folder", type=Path, metavar="OUT")
    front.add_argument("--pick", metavar="SPEC", help=f"one point of it: {PICK}")
    front.add_argument("--json", action="store_true", help="print the front, or the pick, as JSON")
    front.set_defaults(run="run_front")


def _add_export(commands: Any, common: argparse.ArgumentParser) -> None:
    export = _command(
        commands, common, "export", "write the model of one point of the front, and its card"
    )
    add = export.add_argument
    add("folder", type=Path, metavar="OUT")
    add("--pick", required=True, metavar="SPEC", help=f"which point: {PICK}")
    add("--to", type=Path, required=True, metavar="FILE", help="the new file; FILE.json beside it")
    add(
        "--format",
        default="weights",
        choices=("weights", "torchscript", "exported"),
        help="a state dict (default), or a program for torch.jit.load or torch.export.load",
    )
    add("--force", action="store_true", help="write over files that are there")
    add("--json", action="store_true", help="print the card")
    export.set_defaults(run="run_export")


def _add_explain(commands: Any, common: argparse.ArgumentParser) -> None:
    explain = _command(
        commands, common, "explain", "tell one trial's story: proposed, trained, released"
    )
    explain.add_argument("folder", type=Path, metavar="OUT")
    explain.add_argument("trial", metavar="TRIAL", help="its number")
    explain.set_defaults(run="run_explain")


def _add_report(commands: Any, common: argparse.ArgumentParser) -> None:
    report = _command(
        commands, common, "report", "write report.html, front.csv and all plots again"
    )
    report.add_argument("folder", type=Path, metavar="OUT")
    report.add_argument(
        "--reference",
        type=Path,
        metavar="FILE.csv",
        help="draw published points beside the front: columns name and the first two objectives",
    )
    report.set_defaults(run="run_report")


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
