"""The report of a sweep as one HTML page that loads nothing: figures, tables, scripts are in it.

plotly.js is a part of the page (4.8 MB). The page's own policy lets the browser load nothing.
Whatever a user or an error named is escaped.
"""

from __future__ import annotations

import html
import json
from datetime import datetime
from importlib.resources import files

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from search.report.contents import ReportContents
from search.report.figures import attainment_figure, front_figure, growth_figure
from search.report.html_table import front_table
from search.report.parameter_figures import (
    NEGLIGIBLE,
    by_importance,
    importance_figure,
    parallel_figure,
    slices_figure,
)

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "img-src data: blob:"
)
"""Nothing from anywhere; plotly writes styles, and compiles what draws parallel coordinates."""

PROBLEM = """
addEventListener("error", (event) => {
  const place = document.getElementById("problem");
  place.hidden = false;
  place.textContent = `A part of this page could not be drawn: ${event.message}`;
});
"""

N_FAILURES = 200
"""So many failed trials are listed one by one."""


def report_html(found: ReportContents) -> str:
    """The whole page."""
    sections = {
        "Front": _front(found),
        "Operating points on the front": _table(found),
        "Cost": _growth(found),
        "Repeats": _repeats(found),
        "Parameters": _parallel(found),
        "Importance": _importance(found),
        "Slices": _slices(found),
        "Failures": _failures(found),
        "Provenance": _provenance(found),
    }
    links = [f'<a href="#{_anchor(title)}">{title}</a>' for title in sections]
    body = [
        f'<section id="{_anchor(title)}"><h2>{title}</h2>{content}</section>'
        for title, content in sections.items()
    ]
    style, script = (
        files("search.report").joinpath(f"report.{kind}").read_text("utf-8")
        for kind in ("css", "js")
    )
    title = f"Sweep {html.escape(found.name)}"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>\n{style}</style>",
            f"</head>\n<body>\n<script>{PROBLEM}</script>",
            f"<header><h1>{title}</h1>{_summary(found)}</header>",
            f"<nav>{''.join(links)}</nav>",
            '<p id="problem" hidden></p>',
            *body,
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


def _summary(found: ReportContents) -> str:
    counts, cost, front = found.counts, found.cost, found.front
    ended = f"{counts.stopped_early} stopped early, {counts.failed} failed"
    if counts.unfinished:
        ended += f", {counts.unfinished} unfinished"
    above = ", ".join(f"{level:g}" for level in front.reference)
    spared = cost["reused_forward_images"]
    facts = {
        "Hypervolume": (f"{front.hypervolume:.4f}", f"above ({above}), on validation"),
        "Front": (_plural(len(front.points), "point"), f"of {len(found.points)}"),
        "Trials": (f"{counts.completed} completed", ended),
        "Cost": (f"{cost['forward_images']:.3g}", f"forward images; {spared:.3g} spared"),
        "Training": (_duration(cost["seconds"]), f"on GPUs: {_duration(cost['gpu_seconds'])}"),
        "On disk": (f"{found.disk_bytes / 1e6:.1f} MB", "models, trials, study"),
    }
    cells = [
        f"<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>"
        for name, (value, more) in facts.items()
    ]
    objectives = html.escape(" and ".join(found.objectives))
    return (
        f'<p class="quiet">Trade-offs of {objectives} accuracy, written {_now()}.</p>'
        f'<dl class="facts">{"".join(cells)}</dl>'
    )


def _front(found: ReportContents) -> str:
    if not found.points:
        return _absent("No trial has completed, so there is no operating point yet.")
    text = (
        "Each point is one mixture of one trial's experts; a gray line joins the mixtures of a "
        "trial. No other point is at least as good in all objectives as one on the front. Bars "
        "are exact 95 % intervals. Hover for the configuration; click the legend to hide."
    )
    if len(found.objectives) > 2:
        text += f" The colour is the {html.escape(found.objectives[2])} accuracy."
    if found.verified:
        text += (
            " Verified points were measured again on test images, by stronger attacks if so asked: "
            "on the whole a front loses there what it owed to the choice among noisy numbers and "
            "to weak attacks. Wide bars say that the test images were few."
        )
    if found.reference:
        text += (
            " Published points are other models, trained on other terms and judged by other "
            "attacks; they show where the field is, not who is better."
        )
    return _figure("front", front_figure(found), text)


def _table(found: ReportContents) -> str:
    if not found.front.points:
        return _absent("The front is empty.")
    text = (
        "<p>Accuracies in % with 95 % intervals. <em>Like</em> names the points whose intervals "
        "overlap in every objective: the data cannot tell them apart.</p>"
    )
    return f'{text}<div class="wide">{front_table(found)}</div>{_suspicions(found)}'


def _suspicions(found: ReportContents) -> str:
    """What the findings of verified points say."""
    rows = [
        f"<li>{html.escape(point)}: <em>{html.escape(name)}</em>: {html.escape(message)}</li>"
        for point in found.verified
        for name, message in found.suspicions(point)
    ]
    if not rows:
        return ""
    text = (
        "<em>ReportContents</em> are signs that an attack failed, so that robustness is overstated:"
    )
    return f"<p>{text}</p><ul>{''.join(rows)}</ul>"


def _growth(found: ReportContents) -> str:
    if not found.history:
        return _absent("No trial has ended.")
    text = (
        "What the front was worth when each trial ended. Cost counts every trial, also those "
        "stopped or failed. Time includes pauses between a sweep and its resume."
    )
    return _figure("growth", growth_figure(found.history), text)


def _repeats(found: ReportContents) -> str:
    attained = found.attainment
    if attained is None or not attained.surfaces:
        return _absent("The front was not trained again; sweep --repeats R does that.")
    if len(found.objectives) > 2:
        return _absent("Attainment is drawn for two objectives; the table has the repeats' means.")
    text = (
        "The front's configurations, trained again with "
        f"{_plural(attained.n_repeats, 'other seed')}. A line bounds what so many repeats attain. "
        "The first training, dotted, was chosen for its result and has no part in them."
    )
    if attained.n_left_out:
        text += f" {_plural(attained.n_left_out, 'repeat')} left out: a training failed."
    return _figure("attainment", attainment_figure(found, attained), text)


def _parallel(found: ReportContents) -> str:
    if not found.points:
        return _absent("No operating point, no lines.")
    text = (
        "A line is an operating point. Drag along an axis to keep the lines that pass there; drag "
        "a title to move its axis. Scroll sideways for more. Axes over wide ranges are logarithmic."
    )
    return _figure("parallel", parallel_figure(found), text)


def _importance(found: ReportContents) -> str:
    sentences = [
        f"Not for {html.escape(one.target)}: {one.refusal}."
        for one in found.importances
        if one.refusal
    ]
    given = [one for one in found.importances if one.refusal is None]
    if not given:
        return _absent(" ".join(sentences))
    rests = "; ".join(
        f"{html.escape(one.target)}: the best {one.n_best} of {one.n_trials}" for one in given
    )
    text = (
        "The share of what sets the best trainings apart that each parameter explains (conditional "
        "PED-ANOVA), in %. A training counts once, by the best of its mixtures; for reaching the "
        "front those that were stopped early count as far from it. Behind a parameter stands how "
        f"many trainings have it, if not all; one that a single training has counts 0. "
        f"It rests on {rests}. It shows what went together in this sweep, not causes."
    )
    _, negligible = by_importance(given)
    if negligible:
        names = ", ".join(html.escape(name) for name in negligible)
        sentences.append(f"Less than {100 * NEGLIGIBLE:g} % everywhere: {names}.")
    return _figure("importance", importance_figure(given), " ".join([text, *sentences]))


def _slices(found: ReportContents) -> str:
    if not found.points:
        return _absent("No operating point, no slices.")
    text = "Every operating point by mixing ratio and by sync interval; blue: on the front."
    return _figure("slices", slices_figure(found), text)


def _failures(found: ReportContents) -> str:
    if not found.failures:
        return _absent("No trial failed.")
    kinds: dict[str, int] = {}
    for failure in found.failures.values():
        kinds[failure.kind] = kinds.get(failure.kind, 0) + 1
    counted = ", ".join(f"{n} {html.escape(kind)}" for kind, n in sorted(kinds.items()))
    listed = list(found.failures.items())[:N_FAILURES]
    rows = [
        f'<tr><td class="text">{html.escape(trial)}</td>'
        f'<td class="text">{html.escape(failure.kind)}</td>'
        f'<td class="text reason">{html.escape(failure.reason)}</td></tr>'
        for trial, failure in listed
    ]
    more = len(found.failures) - len(listed)
    rest = f"<p>And {more} more, see the study.</p>" if more else ""
    return (
        f"<p>{counted}.</p>"
        '<div class="wide"><table><thead><tr><th class="text">trial</th><th class="text">kind</th>'
        f'<th class="text">reason</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f"{rest}"
    )


def _provenance(found: ReportContents) -> str:
    environment = dict(found.environment)
    command = environment.pop("command", None)
    shown = f"<pre>{html.escape(command)}</pre>" if command else _absent("The command is unknown.")
    rows = "\n".join(f"{name:<18} {value}" for name, value in environment.items())
    request = html.escape(json.dumps(found.request, indent=2))
    return (
        f"{shown}<pre>{html.escape(rows) or 'The environment is unknown.'}</pre>"
        f"<details><summary>The whole request</summary><pre>{request}</pre></details>"
    )


def _figure(name: str, figure: go.Figure, caption: str) -> str:
    """A place for a figure, its data and its caption."""
    figure.update_layout(template="none")
    spec = figure.to_plotly_json()
    spec["layout"].pop("template", None)
    data = json.dumps({"data": spec["data"], "layout": spec["layout"]}, allow_nan=False)
    # What closes a script closes it inside a JSON string, too.
    data = data.replace("<", "\\u003c")
    return (
        f'<figure><figcaption>{caption}</figcaption><div class="wide"><div data-figure="{name}">'
        f'</div></div><script type="application/json" id="{name}">{data}</script></figure>'
    )


def _absent(sentence: str) -> str:
    return f'<p class="quiet">{sentence}</p>'


def _anchor(title: str) -> str:
    return "section-" + title.split(maxsplit=1)[0].lower()


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
