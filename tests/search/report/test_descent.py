"""How trials descend from each other."""

from __future__ import annotations

from pathlib import Path

from generalist_core.config import TrainConfig
from generalist_core.config.presets import short
from search.report.descent import Ancestor, ancestors, lineage_of
from spaces import Trial, tune_int
from spaces.lineages import START, branch, continued
from tests.helpers.ledgers import COST, PLANTED, new_ledger, release
from tests.helpers.reports import ledger_of, page_of

STEPS = "experts.robust.attack.steps"


def few_lineages(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Branches of robust experts with two to five attack steps."""
    return branch(trial, tune_int(trial, base, STEPS, 2, 5))


def test_a_trial_continues_the_longest_lineage_that_reaches_its_start(tmp_path: Path) -> None:
    """The first trial of each stage; other settings and failed trials are no ancestors."""
    ledger = new_ledger()
    trials = [(2, 1), (3, 1), (2, 4), (2, 4), (3, 2), (3, 4), (2, 2), (2, 9)]
    for number, (steps, start) in enumerate(trials):
        proposal = ledger.ask(few_lineages, short(), {STEPS: steps, START: start})
        if number == 4:
            ledger.tell_failed(proposal.trial, PLANTED, COST)
        else:
            ledger.tell_released(proposal.trial, release(proposal), COST)
    expected = {2: (0, 1), 3: (2, 4), 4: (1, 1), 5: (1, 1), 6: (0, 1), 7: (2, 4)}
    assert ancestors(ledger.results.records()) == {
        f"{trial:04d}": Ancestor(trial=f"{ancestor:04d}", epochs=epochs)
        for trial, (ancestor, epochs) in expected.items()
    }
    page = page_of(tmp_path, ledger)
    assert {"trial-0000", "trial-0001", "trial-0002"} == {a for a in page.anchors if "trial-" in a}
    assert page.anchors <= page.ids
    assert "0002 at epoch 4" in page.text


def test_settings_beside_the_expert_make_another_lineage() -> None:
    def with_batches(trial: Trial, base: TrainConfig) -> TrainConfig:
        return few_lineages(trial, tune_int(trial, base, "batch_size", 16, 32, step=16))

    ledger = new_ledger()
    for size in (16, 32, 16):
        proposal = ledger.ask(with_batches, short(), {STEPS: 2, "batch_size": size})
        ledger.tell_released(proposal.trial, release(proposal), COST)
    assert set(ancestors(ledger.results.records())) <= {"0002"}
    names = {lineage_of(record.params, record.config or {}) for record in ledger.results.records()}
    assert len(names) == 2


def test_where_other_settings_took_over_it_continues_the_lineage_before() -> None:
    """As it was in that epoch, and not as it went on; then its own."""
    ledger = new_ledger()
    first = ledger.ask(few_lineages, short(), {STEPS: 2, START: 3})
    other = ledger.ask(few_lineages, short(), {STEPS: 2, START: 8})

    def taken_over(trial: Trial, base: TrainConfig) -> TrainConfig:
        return continued(few_lineages(trial, base), first.config)

    taken = [ledger.ask(taken_over, short(), {STEPS: 4, START: start}) for start in (5, 9)]
    for proposal in (first, other, *taken):
        ledger.tell_released(proposal.trial, release(proposal), COST)
    assert ancestors(ledger.results.records()) == {
        other.trial: Ancestor(trial=first.trial, epochs=3),
        taken[0].trial: Ancestor(trial=first.trial, epochs=3),
        taken[1].trial: Ancestor(trial=taken[0].trial, epochs=5),
    }


def test_a_sweep_without_lineages_has_no_ancestors(tmp_path: Path) -> None:
    ledger = ledger_of(3)
    assert ancestors(ledger.results.records()) == {}
    assert "continues" not in page_of(tmp_path, ledger).text
