"""A sweep in Weights & Biases, offline."""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.callbacks import WandbCallback
from tests.helpers.ledgers import PLANTED, release
from tests.helpers.searches import epoch, proposed, searcher

BLOCK, HEADER = 32768, 7
"""Bytes of a block of LevelDB's log, and of the header of a record, and of the file."""

pytest.importorskip("wandb", reason="the extra wandb is not installed")
pytestmark = pytest.mark.slow


def test_each_trial_is_a_run_with_its_end(tmp_path: Path) -> None:
    callback = WandbCallback("digits", "sweep", mode="offline", dir=tmp_path)
    searching = searcher()
    trials = [proposed(searching) for _ in range(4)]
    results, metrics = searching.ledger.results, {**epoch(2), "epoch/robust": 2, "loss/robust": 0.5}
    for trial in trials:
        callback.on_begun(trial)
        callback.on_metrics(trial.trial, metrics)
    runs = [callback.runs[trial.trial] for trial in trials]
    assert [run.name for run in runs] == [trial.trial for trial in trials]
    assert dict(runs[0].config) == dict(trials[0].params)
    completed, failed, stopped, _ = (trial.trial for trial in trials)
    callback.on_completed(completed, release(trials[0]), results)
    callback.on_failed(failed, PLANTED, results)
    callback.on_failed("rejected", PLANTED, results)
    callback.on_stopped(stopped, 2, results)
    callback.close()
    assert callback.runs == {}
    files = sorted(tmp_path.rglob("*.wandb"), key=lambda file: file.name)
    summaries = [summary_in(file) for file in files]
    assert [s["state"] for s in summaries] == ["completed", "failed", "stopped early", "unfinished"]
    assert (summaries[0]["best/natural"], summaries[0]["loss/robust"]) == (1.0, 0.5)
    assert summaries[1]["failure"] == "error"


def summary_in(file: Path) -> dict[str, Any]:
    """The last values in the file of an offline run, which is a log of LevelDB."""
    pb2 = importlib.import_module("wandb.proto.wandb_internal_pb2")
    values: dict[str, Any] = {}
    for data in records_in(file.read_bytes()):
        record = pb2.Record()
        record.ParseFromString(data)
        for item in (*record.history.item, *record.summary.update):
            name = item.key or "/".join(item.nested_key)
            values[name] = json.loads(item.value_json)
    return values


def records_in(log: bytes) -> Iterator[bytes]:
    """The records, joined from their parts; a checksum (4 bytes) is before length and kind."""
    record, place = b"", HEADER
    while place + HEADER <= len(log):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", log, place + 4)
        record += log[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
