"""The commands for all sweeps of a folder, and for what is in one of them."""

from __future__ import annotations

import json
from pathlib import Path

import search
from generalist_core.validation import InvalidConfigError
from search.cli.option_groups import argument, command, option, switch
from search.cli.options import ResultOptions


@command("list runs")
def run_list(
    output: ResultOptions,
    folder: Path = argument("[FOLDER]", required=False, default=Path()),
) -> None:
    """List the sweeps below a folder, by default the working directory."""
    from search.api.overview import sweeps_table
    from search.cli import printing

    sweeps = search.list_sweeps(folder)
    if output.json:
        found = {k: {"error": v} if isinstance(v, str) else v.to_dict() for k, v in sweeps.items()}
        printing.say(json.dumps({"sweeps": found}))
    elif sweeps:
        printing.print_table(sweeps_table(sweeps, folder), width=120)
    else:
        printing.say(f"No sweep in {folder.absolute()}")


@command("trials runs/digits --sort -best_robust")
def run_trials(
    output: ResultOptions,
    folder: Path = argument("OUT"),
    sort: str | None = option(
        "sort by a column of the CSV, such as seconds, or -seconds for the largest first", "COLUMN"
    ),
    csv: bool = switch("print all columns, parameters too, as CSV"),
) -> None:
    """Print all trials of a sweep, also those that were stopped, failed or run."""
    from search.cli import printing
    from search.report.console_table import trials_console_table
    from search.report.plots import table_csv
    from search.study.tables import sorted_by

    sweep = search.open_sweep(folder)
    table = sweep.trials if sort is None else sorted_by(sweep.trials, sort)
    if csv:
        printing.say(table_csv(table).removesuffix("\n"))
    elif output.json:
        rows = table.reset_index().astype(object)
        printing.say(json.dumps({"trials": rows.where(rows.notna(), None).to_dict("records")}))
    else:
        shown = sort and sort.removeprefix("-")
        printing.print_table(trials_console_table(table, shown), width=120)


@command("compare runs/tpe runs/random --to comparison.html")
def run_compare(
    output: ResultOptions,
    folders: tuple[Path, ...] = argument("OUT..."),
    to: Path | None = option("also write a page with figures", "FILE"),
    force: bool = switch("overwrite an existing file"),
) -> None:
    """Compare sweeps: their fronts, and the hypervolume over the cost."""
    from search.cli import printing
    from search.files import write_text
    from search.report.comparison import compare, comparison_table
    from search.report.comparison_page import comparison_html

    if to is not None and to.exists() and not force:
        raise InvalidConfigError(
            f"`--to` must be a new file, but {to} exists. Give another one, or --force."
        )
    unique = {folder.resolve(): folder for folder in folders}
    comparison = compare({str(given): search.open_sweep(given) for given in unique.values()})
    if to is not None:
        write_text(to, comparison_html(comparison))
    if output.json:
        printing.say(json.dumps(comparison.to_dict()))
        return
    printing.print_table(comparison_table(comparison), width=120)
    for caution in comparison.cautions:
        printing.say(f"Note: {caution}")
    if not output.quiet:
        printing.say(f"Written: {to}" if to else "With figures: --to FILE writes a page.")


@command("clean runs/digits --dry-run")
def run_clean(
    output: ResultOptions,
    folder: Path = argument("OUT"),
    dry_run: bool = switch("only say what would be removed"),
) -> None:
    """Remove what no command needs any more of a sweep that does not run.

    These are the shared warm-ups, which a resume with more trials would train again; checkpoints
    and weights that the front does not need; and what Ray or a crash left behind.
    """
    from search.cli import printing

    sizes = search.clean(folder, dry_run=dry_run)
    if output.json:
        printing.say(json.dumps({"removed": not dry_run, "bytes": sizes}))
        return
    for kind, size in sizes.items():
        printing.say(f"{size / 1e6:10.1f} MB  {kind}")
    verb = "can be freed" if dry_run else "freed"
    printing.say(f"{sum(sizes.values()) / 1e6:10.1f} MB  {verb}")
