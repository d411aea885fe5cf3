"""What cannot run is reported before any work is done."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from generalist_core.config import CustomAttack, CustomLoss
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.api.sweep import sweep
from search.config import Resources, SweepConfig
from search.running.preflight import preflight, require_reachable
from tests.helpers import custom_functions
from tests.helpers.problems import tiny_dataset, two_experts, with_expert


def test_a_missing_cluster_is_reported_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        request = SweepConfig(base=short(), resources=Resources(address=address))
        with pytest.raises(InvalidConfigError, match="Connection refused"):
            require_reachable(address)
        with pytest.raises(InvalidConfigError, match="running Ray cluster"):
            sweep(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("attack", "loss", "message"),
    [
        ("leaves_the_ball", "cross_entropy", "`expert robust` must run.*linf ball of radius 0.2"),
        ("pgd", "detached", "`expert robust` must run.*scalar with a gradient"),
    ],
)
def test_custom_functions_are_tried_on_two_images(attack: str, loss: str, message: str) -> None:
    file = custom_functions.__file__
    made = CustomAttack(function=f"{file}:{attack}", epsilon=0.2, forward_images=6)
    custom_loss = CustomLoss(function=f"{file}:{loss}")
    config = with_expert(two_experts(), "robust", attack=made, loss=custom_loss)
    with pytest.raises(InvalidConfigError, match=message):
        preflight(config, tiny_dataset())
