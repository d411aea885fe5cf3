"""The records that TensorBoard's HParams page is made from."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from search.monitoring.hparams import write_end, write_experiment, write_start


def content(folder: Path, tag: str) -> bytes:
    """The content of the record with this tag."""
    events = EventAccumulator(str(folder)).Reload()
    stored: bytes = events.SummaryMetadata(tag).plugin_data.content
    return stored


def test_the_experiment_has_the_columns_that_were_written_last(tmp_path: Path) -> None:
    write_experiment(tmp_path, {"old": ()}, {})
    parameters = {"mixing.decay": (), "experts.robust.loss": ("trades", None)}
    write_experiment(tmp_path, parameters, {"curve": "hypervolume"})
    experiment = metadata.parse_experiment_plugin_data(content(tmp_path, metadata.EXPERIMENT_TAG))
    number, choice = experiment.hparam_infos
    assert (number.name, number.type, number.differs) == (
        "mixing.decay",
        api_pb2.DATA_TYPE_FLOAT64,
        True,
    )
    assert (choice.name, choice.type, choice.differs) == (
        "experts.robust.loss",
        api_pb2.DATA_TYPE_STRING,
        False,
    )
    assert list(choice.domain_discrete) == ["trades", "None"]
    (metric,) = experiment.metric_infos
    assert (metric.name.tag, metric.description) == ("objective/curve", "hypervolume")


def test_a_trial_has_its_parameters_and_its_status(tmp_path: Path) -> None:
    parameters = {"mixing.decay": (), "experts.robust.steps": (5, 10)}
    params = {"mixing.decay": 0.5, "experts.robust.steps": 10}
    write_start(tmp_path, "digits-1a2b/0003", params, parameters)
    write_end(tmp_path, "STATUS_FAILURE")
    start = metadata.parse_session_start_info_plugin_data(
        content(tmp_path, metadata.SESSION_START_INFO_TAG)
    )
    assert start.group_name == "digits-1a2b/0003"
    assert start.hparams["mixing.decay"].number_value == 0.5
    assert start.hparams["experts.robust.steps"].string_value == "10"
    end = metadata.parse_session_end_info_plugin_data(
        content(tmp_path, metadata.SESSION_END_INFO_TAG)
    )
    assert end.status == api_pb2.STATUS_FAILURE
