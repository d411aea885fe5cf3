"""The records that TensorBoard's HParams page is made from.

Its columns come from a single `experiment` record, that of the run which TensorBoard reads first.
Therefore there is only one, in the root folder, with all parameters that the space can ask for.
Each trial has a record of its start, with its own parameters, and one of its end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from torch.utils.tensorboard import FileWriter

from spaces.parameters import Choices

METRIC = "objective"
"""The group in the tags of the metrics."""

Status = Literal["STATUS_SUCCESS", "STATUS_FAILURE"]


def write_experiment(
    folder: Path, parameters: Mapping[str, Choices], metrics: Mapping[str, str]
) -> None:
    """Write the columns of the page: parameters with their choices, metrics with descriptions.

    An existing record is replaced; a TensorBoard that has read the old one shows it until it is
    restarted.
    """
    for old in folder.glob("events.*"):
        old.unlink()
    experiment = api_pb2.Experiment(
        time_created_secs=time.time(),
        hparam_infos=[_column(name, choices) for name, choices in parameters.items()],
        metric_infos=[_metric(name, text) for name, text in metrics.items()],
    )
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    _write(folder, _summary(metadata.EXPERIMENT_TAG, data))


def write_start(
    folder: Path, name: str, params: Mapping[str, Any], parameters: Mapping[str, Choices]
) -> None:
    """Record that a trial begins, with its values of the parameters.

    TensorBoard merges records of the same `name` anywhere under its folder, so that no two trials,
    of whichever sweeps, may have one.
    """
    values = {k: _value(value, is_choice=parameters[k] != ()) for k, value in params.items()}
    _write(folder, summary_v2.hparams_pb(values, trial_id=name))


def write_end(folder: Path, status: Status) -> None:
    """Record that a trial has ended."""
    end = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.Status.Value(status), end_time_secs=time.time()
    )
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    _write(folder, _summary(metadata.SESSION_END_INFO_TAG, data))


def _column(name: str, choices: Choices) -> api_pb2.HParamInfo:
    # The page selects five columns, and lists those marked as differing first: let these be the
    # ones about mixing. Numbers get no range, because some ranges depend on the trial, and the page
    # would hide values outside.
    info = api_pb2.HParamInfo(name=name, differs=not name.startswith("experts."))
    info.type = api_pb2.DATA_TYPE_STRING if choices else api_pb2.DATA_TYPE_FLOAT64
    info.domain_discrete.extend(_value(choice, is_choice=True) for choice in choices)
    return info


def _metric(name: str, description: str) -> api_pb2.MetricInfo:
    tag = api_pb2.MetricName(tag=f"{METRIC}/{name}")
    return api_pb2.MetricInfo(name=tag, display_name=name, description=description)


def _value(value: Any, *, is_choice: bool) -> float | str:
    """A number unless it is one of several choices; everything else as text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and not is_choice else str(value)


def _summary(tag: str, data: plugin_data_pb2.HParamsPluginData) -> Summary:
    meta = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=meta, tensor=metadata.NULL_TENSOR)])


def _write(folder: Path, *summaries: Summary) -> None:
    writer = FileWriter(str(folder))
    for summary in summaries:
        writer.add_summary(summary)
    writer.close()
