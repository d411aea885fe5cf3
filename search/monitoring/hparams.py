"""The records from which TensorBoard's HParams page is made.

Its columns come from one `experiment` record, of whichever run TensorBoard meets first. So there is
one, at the root, with all parameters that the space can ask for; a trial says when it begins, with
its own parameters, and when it ends.
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
"""The group of the metrics' names."""

Status = Literal["STATUS_SUCCESS", "STATUS_FAILURE"]


def write_experiment(
    folder: Path, parameters: Mapping[str, Choices], metrics: Mapping[str, str]
) -> None:
    """Write the columns of the page: parameters with their choices, metrics with what they are.

    A record that is there is replaced; a TensorBoard that has read it shows it until restarted.
    """
    for old in folder.glob("events.*"):
        old.unlink()
    experiment = api_pb2.Experiment(
        time_created_secs=time.time(),
        hparam_infos=[_column(name, choices) for name, choices in parameters.items()],
        metric_infos=[_metric(name, about) for name, about in metrics.items()],
    )
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    _write(folder, _summary(metadata.EXPERIMENT_TAG, data))


def write_start(
    folder: Path, trial: str, params: Mapping[str, Any], parameters: Mapping[str, Choices]
) -> None:
    """Say that a trial begins, with values of these parameters."""
    shown = {k: _shown(value, is_choice=parameters[k] != ()) for k, value in params.items()}
    _write(folder, summary_v2.hparams_pb(shown, trial_id=trial))


def write_end(folder: Path, status: Status) -> None:
    """Say that a trial has ended."""
    end = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.Status.Value(status), end_time_secs=time.time()
    )
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    _write(folder, _summary(metadata.SESSION_END_INFO_TAG, data))


def _column(name: str, choices: Choices) -> api_pb2.HParamInfo:
    # The page ticks five columns, and lists first those that are said to differ: let these be how
    # experts are mixed. Numbers get no range: it would hide what is outside, and some depend on
    # the trial.
    info = api_pb2.HParamInfo(name=name, differs=not name.startswith("experts."))
    info.type = api_pb2.DATA_TYPE_STRING if choices else api_pb2.DATA_TYPE_FLOAT64
    info.domain_discrete.extend(_shown(choice, is_choice=True) for choice in choices)
    return info


def _metric(name: str, about: str) -> api_pb2.MetricInfo:
    tag = api_pb2.MetricName(tag=f"{METRIC}/{name}")
    return api_pb2.MetricInfo(name=tag, display_name=name, description=about)


def _shown(value: Any, *, is_choice: bool) -> float | str:
    """A number as such, unless it is one of several choices; all else as text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and not is_choice else str(value)


def _summary(tag: str, data: plugin_data_pb2.HParamsPluginData) -> Summary:
    about = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])


def _write(folder: Path, *summaries: Summary) -> None:
    writer = FileWriter(str(folder))
    for summary in summaries:
        writer.add_summary(summary)
    writer.close()
