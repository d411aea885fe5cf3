"""A training step recorded once on a GPU and replayed: one launch in place of thousands.

What differs from step to step (images, labels, noise, rates and weights of mixtures) is written
into tensors that the recorded kernels read. What is decided in Python is decided once, so only
steps are recorded that decide nothing; see `why_not_recorded`.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from generalist_core.config import CustomAttack, CustomLoss, RMSprop, SeveralAttacks, TrainConfig
from generalist_core.config.attacks import DRAWN
from generalist_core.randomness import Noise
from generalist_core.recording.numbers import Number, StepNumbers

log = logging.getLogger(__name__)

Replay = Callable[[], Tensor]
"""Does again what was recorded; its result is overwritten by the next replay."""

Record = Callable[[Callable[[], Tensor]], Replay]

N_EAGER = 3
"""Steps before the recording, in which torch and its compiler allocate what they keep."""

TOLERANCE = 0.1
"""How far the change of the weights by a replay may be from that by a step of its own, relative.

Gradients are added up in any order on a GPU, and where one is nearly zero, its sign in an attack is
that of the rounding. A step that reads a stale tensor is wrong by more.
"""


Step = Callable[[int, Tensor, Tensor, Sequence[Noise]], Tensor]
"""A step of an epoch by its number, on images (n, c, h, w) with labels (n,); returns the losses."""


StepFunction = Callable[[int | None, Tensor, Tensor, Sequence[Noise], Mapping[str, Number]], Tensor]
"""A `Step` that is given its numbers by name; its own number seeds what a model draws.

None seeds nothing.
"""


def why_not_recorded(config: TrainConfig, device: torch.device) -> str | None:
    """Why the steps of a run are not recorded; None if they are."""
    reasons = {
        "`cuda_graph` is false": not config.cuda_graph,
        "only a GPU can replay": device.type == "cpu",
        "`n_accumulations` is above 1": config.n_accumulations > 1,
    }
    for expert in config.experts:
        is_own = isinstance(expert.attack, CustomAttack) or isinstance(expert.loss, CustomLoss)
        chooses = isinstance(expert.attack, SeveralAttacks) and expert.attack.combine in DRAWN
        draws = expert.batch_augmentation is not None
        waits = isinstance(expert.optimizer, RMSprop)
        reasons |= {
            f"expert {expert.name!r} has a function of the user's": is_own,
            f"the attack of expert {expert.name!r} is drawn on the CPU": chooses,
            f"the `batch_augmentation` of expert {expert.name!r} draws on the CPU": draws,
            f"RMSprop, of expert {expert.name!r}, reads its rate on the CPU": waits,
        }
    return next((reason for reason, holds in reasons.items() if holds), None)


class HeldNoise:
    """Noise that is drawn before it is asked for, into tensors that stay in their places."""

    def __init__(self) -> None:
        self.held: list[tuple[str, Tensor]] = []
        self.source: Noise | None = None
        self.n_asked = 0

    def refill(self, source: Noise) -> None:
        """Draw from `source` what was asked for the last time, in the same order."""
        self.source, self.n_asked = source, 0
        for kind, tensor in self.held:
            tensor.copy_(getattr(source, kind)(tensor))

    def uniform(self, like: Tensor, /) -> Tensor:
        """Uniform in [0, 1)."""
        return self._next("uniform", like)

    def normal(self, like: Tensor, /) -> Tensor:
        """Standard normal."""
        return self._next("normal", like)

    def _next(self, kind: str, like: Tensor) -> Tensor:
        if self.n_asked == len(self.held):
            self.held.append((kind, getattr(self.source, kind)(like)))
        self.n_asked += 1
        return self.held[self.n_asked - 1][1]


class RecordedStep:
    """A step on batches of one form, recorded after `N_EAGER` steps, and used if a replay is right.

    Its numbers change from step to step; `tensors` gives all that it changes, in their places.
    """

    def __init__(
        self,
        do: StepFunction,
        x: Tensor,
        y: Tensor,
        n_noises: int,
        numbers: StepNumbers,
        *,
        tensors: Callable[[], list[Tensor]],
        record: Record,
    ) -> None:
        self.do = do
        self.x, self.y = x.clone(), y.clone()
        self.noises = [HeldNoise() for _ in range(n_noises)]
        self.values = torch.ones(len(numbers.names), device=x.device)
        self.numbers = numbers.held_in(self.values)
        self.tensors = tensors
        self.record = record
        self.n_steps = 0
        self.replay: Replay | None = None
        self.places: list[int] = []
        self.why_not: str | None = None

    @property
    def has_moved(self) -> bool:
        """Whether a tensor is not where the last step was to find it. Within an epoch they stay."""
        return self.why_not is None and self.places != places_of(self.tensors())

    def __call__(
        self,
        step: int,
        x: Tensor,
        y: Tensor,
        noises: Sequence[Noise],
        values: Tensor,
    ) -> Tensor:
        """Do a step of an epoch with these values of the numbers, (n_names,); the losses."""
        self.x.copy_(x)
        self.y.copy_(y)
        self.values.copy_(values)
        for held, noise in zip(self.noises, noises, strict=True):
            held.refill(noise)
        self.n_steps += 1
        if self.why_not is not None:
            return self._body(step)
        if self.n_steps <= N_EAGER:
            losses = self._body(step)
            self.places = places_of(self.tensors())
            return losses
        if self.replay is None:
            return self._recorded(step)
        return self.replay().clone()

    def _body(self, step: int | None = None) -> Tensor:
        for held in self.noises:
            held.n_asked = 0
        return self.do(step, self.x, self.y, self.noises, self.numbers)

    def _recorded(self, step: int) -> Tensor:
        """Record the step, and compare the first replay with a step of its own, which is kept."""
        tensors = self.tensors()
        self.places, drawn = places_of(tensors), random_state()
        try:
            with torch.cuda.device_of(self.x):  # type: ignore[no-untyped-call]
                replay = self.record(self._body)
        except RuntimeError as error:
            self._give_up(f"{type(error).__name__}: {error}")
            return self._body(step)
        before = [tensor.clone() for tensor in tensors]
        replay()
        replayed = [tensor.clone() for tensor in tensors]
        for tensor, old in zip(tensors, before, strict=True):
            tensor.copy_(old)
        draws = not torch.equal(drawn, random_state())
        losses = self._body(step)
        off = distance(replayed, tensors)
        if draws:
            self._give_up("the model draws random numbers")
        elif not off <= TOLERANCE * distance(before, tensors):
            self._give_up(f"its first replay was off by {off:.1e}")
        else:
            self.replay = replay
        return losses

    def _give_up(self, reason: str) -> None:
        self.why_not = reason
        log.warning("The step is not recorded, since %s. It runs as it is.", reason)


class Recordings:
    """Recorded steps by their form; of many forms the latest are kept, at most so many."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: dict[Hashable, RecordedStep] = {}

    def of(self, form: Hashable, begin: Callable[[], RecordedStep]) -> RecordedStep:
        """The step of that form, which begins anew if a tensor is no longer in its place."""
        step = self.kept.pop(form, None)
        self.kept[form] = begin() if step is None or step.has_moved else step
        while len(self.kept) > self.most:
            del self.kept[next(iter(self.kept))]
        return self.kept[form]

    def replaying(
        self,
        do: StepFunction,
        numbers: StepNumbers,
        form: Hashable,
        *,
        device: torch.device,
        tensors: Callable[[], list[Tensor]],
        record: Record,
    ) -> Step:
        """The steps with these numbers, recorded; `form` tells them from other functions."""
        known: dict[Hashable, RecordedStep] = {}
        table = numbers.table(device)

        def step(number: int, x: Tensor, y: Tensor, noises: Sequence[Noise]) -> Tensor:
            batch = form_of(x, y)
            if batch not in known:
                known[batch] = self.of(
                    (form, numbers.names, batch),
                    lambda: RecordedStep(
                        do, x, y, len(noises), numbers, tensors=tensors, record=record
                    ),
                )
            return known[batch](number, x, y, noises, table[number - numbers.first])

        return step

    @property
    def replays(self) -> bool:
        """Whether there is one that is a replay by now."""
        return any(step.replay is not None for step in self.kept.values())


def form_of(x: Tensor, y: Tensor) -> tuple[object, ...]:
    """What must be equal for two batches to run the same kernels."""
    return x.shape, x.stride(), x.dtype, y.shape, y.dtype


def places_of(tensors: Iterable[Tensor]) -> list[int]:
    """Where the tensors are in memory."""
    return [tensor.data_ptr() for tensor in tensors]


def distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """The Euclidean distance of two lists of tensors, of those that are not integers."""
    pairs = zip(first, second, strict=True)
    norms = [torch.dist(a, b) for a, b in pairs if a.is_floating_point() or a.is_complex()]
    return float(torch.stack(norms).norm())


def random_state() -> Tensor:
    """The state of torch's global generators."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return torch.cat(states)


def recorded_on_gpu(function: Callable[[], Tensor]) -> Replay:
    """The function as a CUDA graph.

    All that live have one memory: what a replay keeps lies outside it, and no two run at a time.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=next((live.pool() for live in _GRAPHS), None)):
        result = function()
    _GRAPHS.add(graph)

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


_GRAPHS: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()


@functools.cache
def _side_stream(device: int, _index: int) -> torch.cuda.Stream:
    """The same for all recordings, as torch keeps memory for each stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def side_by_side(tasks: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
    """The results of independent tasks, which a recording lets run at the same time."""
    if not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        return [task() for task in tasks]
    main, results = torch.cuda.current_stream(), []
    device = torch.cuda.current_device()
    streams = [_side_stream(device, index) for index in range(1, len(tasks))]
    for task, stream in zip(tasks[1:], streams, strict=True):
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            results.append(task())
    first = tasks[0]()
    for stream in streams:
        main.wait_stream(stream)
    return [first, *results]
