"""Where the time of a training goes: a few steps under torch's profiler."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from generalist_core.config import TrainConfig
from generalist_core.data.splits import Dataset
from generalist_core.training.trainer import GeneralistTrainer

N_OPERATIONS = 10


def profile_training(
    config: TrainConfig, data: Dataset, trace: Path, *, n_steps: int = 5
) -> list[tuple[str, float]]:
    """Profile `n_steps` of co-training on a new trainer, after as many to warm up.

    Args:
        config: the run; all its experts are trained.
        data: the images.
        trace: where the trace goes, for Perfetto or chrome://tracing.
        n_steps: the number of batches; an epoch may have fewer.

    Returns:
        The ten operations that take the largest fractions of the time, in [0, 1], each with its
        fraction; of the GPU's time if there is a GPU.
    """
    trainer = GeneralistTrainer(replace(config, sync=replace(config.sync, start_epoch=0)), data)
    epochs = (trainer.batches(epoch) for epoch in count())
    batches = list(islice(chain.from_iterable(epochs), 2 * n_steps))
    trainer.train_epoch(batches[:n_steps])
    on_gpu = trainer.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        trainer.train_epoch(batches[n_steps:])
    profiler.export_chrome_trace(str(trace))
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    times = {event.key: getattr(event, key) for event in profiler.key_averages()}
    total = sum(times.values())
    largest = sorted(times.items(), key=lambda item: -item[1])[:N_OPERATIONS]
    return [(name, time / total) for name, time in largest]
