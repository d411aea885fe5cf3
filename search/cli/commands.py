"""What the commands of `generalist-search` do; each takes parsed options, returns the exit code."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress as ProgressBar

from generalist_core.config import TrainConfig
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.device import resolve_device
from generalist_core.training.trainer import Metrics
from generalist_core.validation import InvalidConfigError, require
from search.api.evaluate import evaluate_resumably, follow, suite_document, suite_table
from search.api.explain import explain
from search.api.export import export
from search.api.sweep import resume, sweep
from search.api.train import train_in
from search.api.verify import verified_table, verify
from search.cli.options import build_config, build_suite
from search.cli.profile import profile_training
from search.config import (
    Branching,
    Floor,
    Limits,
    Resources,
    StopWhenDone,
    SuccessiveHalving,
    SweepConfig,
    VerifyConfig,
    WarmupConfig,
)
from search.errors import WorkerError
from search.files import create_folder, disk_bytes
from search.front.pick import Pick
from search.front.points import accuracies_text, point_to_dict
from search.report.console_table import console_table
from search.report.published import read_reference
from search.report.write import front_document, write_files, write_page
from search.running.mixtures import empty_model, load_model
from search.running.preflight import preflight
from search.study.folder import Sweep, open_sweep


def _resources(options: argparse.Namespace, *, local: bool = False) -> Resources:
    return Resources(
        local=local,
        cpus_per_trial=options.cpus_per_trial,
        gpus_per_trial=options.gpus_per_trial,
        workers=options.workers,
        address=options.address,
    )


def _floor(text: str) -> Floor:
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
    return WarmupConfig(folder=str(Path(folder).absolute())) if folder else None


def _stop_when(options: argparse.Namespace) -> StopWhenDone | None:
    growth, cost = options.min_growth, options.within_cost
    both = (growth is None) == (cost is None)
    require(both, "--min-growth and --within-cost go together", f"{growth} and {cost}")
    return StopWhenDone(min_growth=growth, within_cost=cost) if growth is not None else None


def _console(options: argparse.Namespace) -> Console:
    """Where progress is told: standard error, or nowhere."""
    return Console(stderr=True, quiet=options.quiet)


def run_train(options: argparse.Namespace) -> int:
    """Train one configuration in a new folder, and print its operating points."""
    config, console = build_config(options), _console(options)
    data = load_dataset(config.data)
    preflight(config, data)
    create_folder(options.out)
    if options.profile:
        _print_profile(config, data, options.out / "profile.json", console)

    def show(metrics: Metrics) -> None:
        shown = [f"{k} {v:.3f}" for k, v in metrics.items() if k.startswith(("loss/", "accuracy/"))]
        text = f"epoch {metrics['epoch']:>3}/{config.epochs}  {'  '.join(shown)}"
        console.print(text, soft_wrap=True)

    trained = train_in(options.out, config, data, on_epoch=show)
    points = [point_to_dict(point) for point in trained.points]
    if options.json:
        print(json.dumps({"points": points, "forward_images": trained.forward_images}))
    else:
        for point in points:
            accuracies = "  ".join(f"{k} {100 * v:.1f} %" for k, v in point["accuracies"].items())
            print(f"mixing ratio {point['mixing_ratio']}: {accuracies}")
    return 0


def _print_profile(config: TrainConfig, data: Dataset, trace: Path, console: Console) -> None:
    for name, fraction in profile_training(config, data, trace):
        console.print(f"{fraction:6.1%}  {name}", highlight=False, markup=False)
    console.print(f"trace of five steps: {trace} (open it in https://ui.perfetto.dev)")


def _limits(options: argparse.Namespace, before: Limits) -> Limits:
    """The limits as before, less what the options say."""
    given = {
        "trial_s": options.trial_limit,
        "epoch_s": options.epoch_limit,
        "max_retries": options.max_retries,
        "max_failures": 1 if options.fail_fast else options.max_failures,
        "may_accumulate": options.accumulate,
    }
    return replace(before, **{name: value for name, value in given.items() if value is not None})


def _round_size(options: argparse.Namespace) -> int | None:
    if not options.deterministic:
        return None
    workers, cure = options.workers, "What comes out depends on it."
    require(workers is not None, "--workers with --deterministic", "none", cure)
    return int(workers)


def run_sweep(options: argparse.Namespace) -> int:
    """Search a space, and print the front."""
    config = build_config(options)
    request = SweepConfig(
        base=config,
        space=options.space,
        trials=options.trials,
        sampler=options.sampler,
        seed=options.search_seed,
        resources=_resources(options, local=options.local),
        time_budget_s=options.time_budget,
        repeats=options.repeats,
        storage=options.storage,
        at_least=tuple(_floor(text) for text in options.at_least),
        stop_when=_stop_when(options),
        warm_start=tuple(options.warm_start),
        shares_warmups=not options.no_sharing,
        warmups=_store(options.warmups),
        branching=Branching(first=options.branches) if options.branches is not None else None,
        early_stopping=None if options.no_early_stopping else SuccessiveHalving(eta=options.eta),
        limits=_limits(options, Limits()),
        round_size=_round_size(options),
    )
    found = sweep(request, options.out, console=_console(options), debug=options.debug)
    return _print_finished(found, options)


def run_resume(options: argparse.Namespace) -> int:
    """Go on with a sweep, and print the front."""
    old = open_sweep(options.folder).config
    names = ("cpus_per_trial", "gpus_per_trial", "workers", "address", "local")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    elsewhere = {"workers": None, "address": None} if options.local else {}
    config = replace(
        old,
        trials=old.trials if options.trials is None else options.trials,
        time_budget_s=options.time_budget,
        resources=replace(old.resources, **{**elsewhere, **given}),
        limits=_limits(options, old.limits),
    )
    found = resume(options.folder, config, console=_console(options), debug=options.debug)
    return _print_finished(found, options)


def _print_finished(finished: Sweep, options: argparse.Namespace) -> int:
    if finished.counts.completed == 0:
        reasons = sorted({failure.reason for failure in finished.results.failures().values()})
        raise WorkerError(f"No trial succeeded. Reasons: {'; '.join(reasons) or 'none ended'}")
    _print_front(finished, as_json=options.json)
    if not (options.json or options.quiet):
        folder = finished.folder
        print(f"Report: {folder}/report.html, front.csv and .json; weights in {folder}/models")
        print(f"Watch:  tensorboard --logdir {folder}/tensorboard")
        if finished.counts.unfinished:
            n = finished.counts.unfinished
            print(f"{n} trials are unfinished; go on: generalist-search resume {folder}")
    return 0


def run_front(options: argparse.Namespace) -> int:
    """Print a sweep's front, or one point of it and why that one."""
    sweep = open_sweep(options.folder)
    if options.pick is None:
        _print_front(sweep, as_json=options.json)
    else:
        _print_pick(sweep, sweep.pick(options.pick), as_json=options.json)
    return 0


def _print_pick(sweep: Sweep, picked: Pick, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(picked.to_dict()))
        return
    name = picked.point.name
    print(f"{name}  {accuracies_text(picked.point)} on validation images")
    print(picked.reason)
    print(f"Take it: generalist-search export {sweep.folder} --pick {name} --to model.pt")


def run_export(options: argparse.Namespace) -> int:
    """Write the model of one point of a front, and print how to load it."""
    sweep, file = open_sweep(options.folder), options.to
    picked = sweep.pick(options.pick)
    card = export(sweep, options.pick, file, file_format=options.format, force=options.force)
    if options.json:
        print(json.dumps(card))
        return 0
    print(f"{picked.point.name}  {accuracies_text(picked.point)} on validation images")
    print(picked.reason)
    print(f"Written: {file} ({file.stat().st_size / 1e6:.2g} MB), and its card {file}.json. Use:")
    print("\n".join(f"    {line}" for line in card["load"]))
    return 0


def run_explain(options: argparse.Namespace) -> int:
    """Print one trial's story."""
    print(explain(open_sweep(options.folder), options.trial))
    return 0


def run_report(options: argparse.Namespace) -> int:
    """Write a sweep's report again."""
    folder, results = options.folder, open_sweep(options.folder).results
    given = options.reference is not None
    reference = read_reference(options.reference, results.objectives) if given else ()
    write_files(folder, results, reference)
    print(f"{folder}/report.html, front.png, front.csv, front.json; for print: {folder}/plots")
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Verify a front on test images, and print validation beside test."""
    request = VerifyConfig(
        attacks=tuple(options.attacks.split(",")),
        n_images=options.n_images,
        batch_size=options.attack_batch_size,
        seed=options.attack_seed,
    )
    resources = _resources(options) if options.ray else None
    sweep = open_sweep(options.folder)
    document = verify(sweep, request, resources=resources, console=_console(options))
    write_page(sweep.folder, sweep.results)
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


def run_evaluate(options: argparse.Namespace) -> int:
    """Run the attack suite on a saved model, and print the accuracy after each attack."""
    config = build_config(options)
    suite = build_suite(options, config)
    data, device = load_dataset(config.data), resolve_device(config.device)
    model = load_model(options.file, empty_model(config, data, None), trusted=options.trust)
    split = data.validation if options.split == "validation" else data.test
    assert split is not None
    with ProgressBar(console=_console(options), transient=True) as bar:
        show = follow(bar, options.file.name)
        result = evaluate_resumably(
            model.to(device), split.to(device), suite, place=options.out, on_progress=show
        )
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
    if as_json:
        document = front_document(sweep.folder, sweep.results)
        print(json.dumps({**document, "disk_bytes": disk_bytes(sweep.folder)}))
        return
    front, counts, cost = sweep.front, sweep.counts, sweep.results.cost()
    kinds = sweep.results.failure_kinds().items()
    failures = f" ({', '.join(f'{n} {kind}' for kind, n in kinds)})" if kinds else ""
    Console(width=None if sys.stdout.isatty() else 100).print(console_table(sweep.folder, front))
    print(
        f"Hypervolume {front.hypervolume:.4f} above {front.reference}; "
        f"{counts.completed} trials completed, {counts.stopped_early} stopped early, "
        f"{counts.failed} failed{failures}; "
        f"{cost['forward_images']:.3g} forward images, {cost['seconds']:.0f} s of training, "
        f"{disk_bytes(sweep.folder) / 1e6:.1f} MB on disk"
    )
