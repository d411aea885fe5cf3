"""A sweep in MLflow's file store."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.callbacks import MLflowCallback
from tests.helpers.ledgers import PLANTED, release
from tests.helpers.searches import epoch, proposed, searcher

pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
pytestmark = pytest.mark.slow


def test_each_trial_is_a_run_with_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = tmp_path.as_uri()
    callback, searching = MLflowCallback("digits", uri), searcher()
    trials = [proposed(searching) for _ in range(4)]
    results, metrics = searching.ledger.results, {**epoch(2), "epoch/robust": 2, "loss/robust": 0.5}
    for trial in trials:
        callback.on_begun(trial)
        callback.on_metrics(trial.trial, metrics)
    completed, failed, stopped, waiting = (trial.trial for trial in trials)
    callback.on_completed(completed, release(trials[0]), results)
    callback.on_failed(failed, PLANTED, results)
    callback.on_failed("rejected", PLANTED, results)
    callback.on_stopped(stopped, 2, results)
    callback.close()

    again = MLflowCallback("digits", uri)
    runs = {run.info.run_name: run for run in again.client.search_runs([again.experiment])}
    states = {name: run.info.status for name, run in runs.items()}
    assert states == {
        completed: "FINISHED",
        failed: "FAILED",
        stopped: "FINISHED",
        waiting: "KILLED",
    }
    run = runs[completed]
    assert run.data.params == {name: str(value) for name, value in trials[0].params.items()}
    assert (run.data.metrics["loss/robust"], run.data.metrics["best/natural"]) == (0.5, 1.0)
    (history,) = again.client.get_metric_history(run.info.run_id, "loss/robust")
    assert history.step == 2
    assert [f.path for f in again.client.list_artifacts(run.info.run_id)] == ["points.json"]
    assert runs[failed].data.tags["failure"] == "error"
    assert runs[stopped].data.tags["stopped_at"] == "2"

    again.on_begun(trials[3])
    (continued,) = again.runs.values()
    assert continued == runs[waiting].info.run_id
    again.on_stopped(waiting, 3, results)
    assert again.client.get_run(continued).info.status == "FINISHED"
    assert len(again.client.search_runs([again.experiment])) == 4
