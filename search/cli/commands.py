"""The commands of `generalist-search`, one function each.

What is slow to import is imported by the command that needs it, so that the help is quick.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Literal

import search
from generalist_core.config import Norm
from generalist_core.validation import InvalidConfigError
from search.cli.option_groups import argument, command, given, option, switch
from search.cli.options import (
    LOCAL,
    EndOptions,
    FailureOptions,
    MovedOptions,
    OutputOptions,
    ProblemOptions,
    ResourceOptions,
    ResultOptions,
    SuiteOptions,
    TrainingOptions,
    build_config,
    build_suite,
)
from search.cli.request import SearchOptions, build_request
from search.cli.sweep_file import DescriptionOptions, file_text
from search.config import PICKS
from search.wording import printable


@command("train --data digits --epochs 8 --out runs/one")
def run_train(
    training: TrainingOptions,
    problem: ProblemOptions,
    output: ResultOptions,
    profile: bool = switch("before the training, show where the time of a step goes"),
) -> None:
    """Train one configuration, without Ray."""
    output.say_starting()
    from generalist_core.data.datasets import load_dataset
    from search.api.train import train_in
    from search.cli import printing
    from search.files import create_folder
    from search.running.preflight import preflight

    folder, config, console = training.folder(), build_config(problem, training), output.console()
    data = load_dataset(config.data)
    config = preflight(config, data)
    create_folder(folder)
    if profile:
        printing.print_profile(config, data, folder / "profile.json", console)
    show = printing.epoch_printer(console, config.epochs)
    printing.print_points(train_in(folder, config, data, on_epoch=show), output)


@command(
    r"""sweep --data cifar10 --data-root data --download --preset paper \
      --budget 5e9 --gpus-per-trial 0.5 --out runs/cifar10"""
)
def run_sweep(
    training: TrainingOptions,
    problem: ProblemOptions,
    options: SearchOptions,
    failures: FailureOptions,
    resources: ResourceOptions,
    output: ResultOptions,
    description: DescriptionOptions,
) -> None:
    """Search a space on Ray."""
    output.say_starting()
    from search.cli import printing

    before = description.file.request if description.file else None
    base = build_config(problem, training, before.base if before else None)
    request = build_request(options, base, failures, resources, before=before)
    if training.epochs is not None:
        printing.warn_of_searched_lengths(request)
    if description.print_file:
        printing.say(file_text(request).removesuffix("\n"))
    elif description.dry_run:
        printing.print_rehearsal(search.rehearse(request, training.folder()), output)
    else:
        folder, console = training.folder(), output.console()
        if description.file is not None and description.file.images is not None:
            printing.warn_of_other_images(request, description.file.images)
        sweep = search.sweep(request, folder, console=console, debug=output.debug)
        printing.print_finished(sweep, output)


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """How a sweep is resumed."""

    local: bool | None = option(LOCAL, flag="--local/--no-local")
    accept: bool = switch(
        "take changes of sweep.json by hand, if they do not change what a trial results in"
    )


@dataclass(frozen=True, kw_only=True)
class AllMovedOptions(MovedOptions):
    """Where the parts of a sweep are now that only its search needs, too."""

    space: str | None = option("the file of the space (runs it)", "FILE.py:FUNCTION")


@command("resume runs/digits --trials 40")
def run_resume(
    end: EndOptions,
    failures: FailureOptions,
    resources: ResourceOptions,
    moved: AllMovedOptions,
    output: ResultOptions,
    options: ResumeOptions,
    folder: Path = argument("OUT"),
) -> None:
    """Continue a sweep, or a training, however it ended."""
    output.say_starting()
    from search.api.moved import moved_parts
    from search.cli import printing
    from search.study.folder import read_request

    before = read_request(folder)
    config = replace(
        end.over(before),
        resources=resources.over(before.resources, local=options.local),
        limits=failures.over(before.limits),
    )
    if options.accept:
        search.accept_request(folder)
    parts = moved_parts(folder, **given(moved))
    sweep = search.resume(
        folder, config, **vars(parts), console=output.console(), debug=output.debug
    )
    printing.print_finished(sweep, output)


@command("front runs/digits --pick 'natural>=0.85'")
def run_front(
    output: ResultOptions,
    folder: Path = argument("OUT"),
    pick: str | None = option(f"print one point of it: {PICKS}", "SPEC"),
) -> None:
    """Print a sweep's front, or one point of it and the reason."""
    from search.cli import printing

    sweep = search.open_sweep(folder)
    if pick is None:
        printing.print_front(sweep, output)
    else:
        printing.print_pick(sweep, pick, output)


@command("export runs/digits --pick knee --to model.pt")
def run_export(
    output: ResultOptions,
    moved: MovedOptions,
    folder: Path = argument("OUT"),
    pick: str = option(f"which point: {PICKS}", "SPEC", MISSING),
    to: Path = option("the new file; FILE.json is written beside it", "FILE", MISSING),
    format: Literal["weights", "torchscript", "exported"] = option(
        "a state dict (default), or a program for torch.jit.load or torch.export.load",
        default="weights",
    ),
    force: bool = switch("overwrite existing files"),
) -> None:
    """Write the model of one point of the front, and its card."""
    from search.api.moved import moved_parts
    from search.cli import printing

    sweep = search.open_sweep(folder)
    picked, parts = sweep.pick(pick), moved_parts(folder, **given(moved))
    card = search.export(
        sweep, pick, to, file_format=format, data=parts.data, model=parts.model, force=force
    )
    printing.print_exported(picked, to, card, output)


@command("explain runs/digits 0003")
def run_explain(
    output: OutputOptions, folder: Path = argument("OUT"), trial: str = argument("TRIAL")
) -> None:
    """Tell how one trial, by its number, was proposed, trained and released."""
    print(printable(search.explain(search.open_sweep(folder), trial)))


@command("report runs/digits --reference published.csv")
def run_report(
    output: OutputOptions,
    folder: Path = argument("OUT"),
    reference: Path | None = option(
        "draw published points beside the front: columns name and the first two objectives",
        "FILE.csv",
    ),
    pick: str = option(f"describe this point, by default the knee: {PICKS}", "SPEC", "knee"),
) -> None:
    """Write report.html, front.csv and all plots again."""
    from search.report.published import read_reference

    sweep = search.open_sweep(folder)
    published = read_reference(reference, sweep.results.objectives) if reference else ()
    search.write_report(sweep, published, spec=pick)
    written = f"{folder}/report.html, front.png, front.csv, front.json; for print: {folder}/plots"
    print(printable(written))


@command("verify runs/digits --attacks pgd-20,autoattack --n-images 500")
def run_verify(
    attacks: SuiteOptions,
    resources: ResourceOptions,
    moved: MovedOptions,
    output: ResultOptions,
    folder: Path = argument("OUT"),
    ray: bool = switch("spread the points over Ray's workers"),
) -> None:
    """Measure a front again, on test images, by AutoAttack."""
    from search.api.moved import moved_parts
    from search.cli import printing
    from search.report.write import warning_if_missing

    request = search.VerifyConfig(**attacks.settings())
    workers = resources.over(search.Resources()) if ray else None
    sweep, parts = search.open_sweep(folder), moved_parts(folder, **given(moved))
    document = search.verify(
        sweep,
        request,
        resources=workers,
        data=parts.data,
        model=parts.model,
        console=output.console(),
    )
    with warning_if_missing(sweep.folder):
        search.write_report(sweep)
    printing.print_verified(sweep, document, output)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What `evaluate` loads, and how."""

    pick: str | None = option(f"which point of a sweep; default knee: {PICKS}", "SPEC")
    split: Literal["test", "validation"] = option("default test", default="test")
    trust: bool = switch(
        "also load a whole module, a program or any checkpoint; this runs code that the file holds"
    )
    out: Path | None = option("store progress here, and continue from it", "FILE")


@command("evaluate model.pt --data digits --attacks fgsm,pgd-20 --split test")
def run_evaluate(
    attacks: SuiteOptions,
    problem: ProblemOptions,
    model: ModelOptions,
    output: ResultOptions,
    file: Path = argument("MODEL"),
    norm: Norm | None = option("default that of the preset or file: linf"),
) -> None:
    """Run the attack suite on any saved model.

    MODEL is a state dict saved by torch, also in a checkpoint; or what export wrote, whose card
    says the model and the data; or the folder of a sweep or of train.
    """
    from rich.progress import Progress as ProgressBar

    from generalist_core.data.datasets import load_dataset
    from generalist_core.device import resolve_device
    from search.api.evaluate import evaluate_resumably, follow, suite_document
    from search.api.saved_models import saved_model
    from search.cli import printing

    saved = saved_model(file, pick=model.pick, trusted=model.trust)
    own = problem.config is None and problem.preset is None
    if own and (missing := saved.custom_parts() - set(given(problem))):
        raise InvalidConfigError(
            f"The card of {file} must name its parts, but its {' and '.join(sorted(missing))} came "
            "from Python. Give --data, --model or both."
        )
    config = build_config(problem, before=saved.config if own else None)
    suite = build_suite(attacks, config, norm)
    data, device = load_dataset(config.data), resolve_device(config.device)
    network = saved.load(config, data).to(device)
    split = data.validation if model.split == "validation" else data.test
    assert split is not None
    with ProgressBar(console=output.console(), transient=True) as bar:
        show = follow(bar, file.name)
        result = evaluate_resumably(
            network, split.to(device), suite, place=model.out, on_progress=show
        )
    printing.print_suite(suite_document(result), output)
