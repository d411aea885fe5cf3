"""The store of warm-ups: law 3, one training per warm-up, damage, and eviction."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from generalist_core.config import PGD, SGD, SyncConfig, TrainConfig
from generalist_core.training.trainer import DivergedError, GeneralistTrainer
from generalist_core.training.warmups import warming, warmup_keys
from generalist_core.validation import InvalidConfigError
from search.files import read_json
from search.running.warmups import Claimed, WarmupStore, largest_gap, share_warmups
from tests import ROOT
from tests.helpers.damages import emptied, flipped, torn
from tests.helpers.problems import (
    RUNS,
    linear_net,
    ratio,
    same_bits,
    start,
    three_experts,
    tiny_dataset,
    train_to,
    two_experts,
    with_expert,
)

EPOCH_COST = {"natural": 16 * 3, "robust": 16 * 7}
"""Forward images of an epoch of each expert of `two_experts`."""


def to_sync(start_epoch: int, **changes: Any) -> TrainConfig:
    sync = SyncConfig(start_epoch=start_epoch, every_epochs=2)
    return two_experts(**{"sync": sync, "epochs": 6, **changes})


def warmed(config: TrainConfig, store: WarmupStore, every_epochs: int = 2) -> GeneralistTrainer:
    trainer = start(config)
    for _ in share_warmups(trainer, store, every_epochs=every_epochs):
        pass
    return trainer


def forget(path: Path, seconds: float = 1000) -> None:
    """Make a file look as if it had not been touched for so long."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def published(folder: Path) -> list[str]:
    """EXPERT@EPOCH of every stored state."""
    states = folder.glob("*/*.pt")
    return sorted(f"{read_json(p.parent / 'meta.json')['expert']['name']}@{p.stem}" for p in states)


# Law 3


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_from_the_store_ends_as_one_that_trained_its_own(name: str, tmp_path: Path) -> None:
    config, store = RUNS[name], WarmupStore(tmp_path)
    first, second = warmed(config, store), warmed(config, store)
    assert second.forward_images == 0
    assert second.reused_forward_images == first.forward_images
    alone = train_to(start(config), config.epochs)
    for trainer in (first, second):
        train_to(trainer, config.epochs)
        assert same_bits(trainer.averages(), alone.averages())
        assert same_bits(trainer.global_learner, alone.global_learner)
        total = trainer.forward_images + trainer.reused_forward_images
        assert total == alone.forward_images


BRANCH = with_expert(
    to_sync(4, mixing=ratio(0.8), sync=SyncConfig(start_epoch=4, every_epochs=1)),
    "natural",
    optimizer=SGD(lr=0.02),
)
"""Another mixing ratio, sync interval and natural expert than `to_sync(4)`."""


def run_branch(root: str, end: str) -> None:
    """Train BRANCH from the store to its end, in a process of its own."""
    torch.set_num_threads(1)
    trainer = train_to(warmed(BRANCH, WarmupStore(Path(root))), BRANCH.epochs)
    state = {"averages": trainer.averages(), "global": trainer.global_learner}
    torch.save({**state, "reused": trainer.reused_forward_images}, end)


def in_new_process(
    code: str, *arguments: str, stdout: int | None = None
) -> subprocess.Popen[bytes]:
    code = f"import sys; from {__name__} import *; {code}"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=stdout)


@pytest.mark.slow
def test_a_branch_in_another_process_ends_as_one_that_trained_its_own(tmp_path: Path) -> None:
    warmed(to_sync(4), WarmupStore(tmp_path / "store"))
    end = str(tmp_path / "end.pt")
    child = in_new_process("run_branch(*sys.argv[1:])", str(tmp_path / "store"), end)
    assert child.wait() == 0
    found, alone = torch.load(end, weights_only=True), train_to(start(BRANCH), BRANCH.epochs)
    assert found["reused"] == 4 * EPOCH_COST["robust"]
    assert same_bits(found["averages"], alone.averages())
    assert same_bits(found["global"], alone.global_learner)


# Stretches


def test_states_at_multiples_and_at_the_first_sync_stay_where_they_save_much(
    tmp_path: Path,
) -> None:
    trainer = warmed(to_sync(5), WarmupStore(tmp_path))
    assert published(tmp_path) == ["natural@5", "robust@2", "robust@5"]
    assert trainer.forward_images == 5 * sum(EPOCH_COST.values())


def test_a_longer_warm_up_continues_a_shorter_one(tmp_path: Path) -> None:
    store = WarmupStore(tmp_path)
    warmed(to_sync(3), store)
    trainer = warmed(to_sync(5), store)
    assert trainer.forward_images == 2 * sum(EPOCH_COST.values())
    assert same_bits(trainer.averages(), train_to(start(to_sync(5)), 5).averages())


def test_a_shorter_warm_up_takes_the_latest_state_that_it_can_use(tmp_path: Path) -> None:
    store = WarmupStore(tmp_path)
    warmed(to_sync(5), store)
    trainer = warmed(to_sync(3), store)
    assert trainer.forward_images == EPOCH_COST["robust"] + 3 * EPOCH_COST["natural"]
    assert trainer.reused_forward_images == 2 * EPOCH_COST["robust"]
    assert same_bits(trainer.averages(), train_to(start(to_sync(3)), 3).averages())
    keys = warmup_keys(trainer, "robust")
    assert [store.find(keys, epoch) for epoch in range(4)] == [None, None, None, 3]


def test_a_stopped_warm_up_continues_where_it_was(tmp_path: Path) -> None:
    store, config = WarmupStore(tmp_path), to_sync(4)
    stopped, again = start(config), start(config)
    stretch = share_warmups(stopped, store, every_epochs=4)
    next(stretch)
    again.load_state_dict(stopped.state_dict())
    stretch.close()
    for _ in share_warmups(again, store, every_epochs=4):
        pass
    assert again.forward_images == 4 * sum(EPOCH_COST.values())
    assert same_bits(again.averages(), train_to(start(config), 4).averages())


def test_what_the_method_discards_is_neither_trained_nor_stored(tmp_path: Path) -> None:
    config = to_sync(4, mixing=ratio(1.0))
    trainer = warmed(config, WarmupStore(tmp_path))
    assert trainer.forward_images == 4 * EPOCH_COST["robust"]
    assert published(tmp_path) == ["robust@2", "robust@4"]


def test_a_run_without_a_warm_up_asks_for_nothing(tmp_path: Path) -> None:
    trainer = warmed(to_sync(0), WarmupStore(tmp_path))
    assert (trainer.epoch, published(tmp_path)) == (0, [])


def test_a_description_lies_beside_a_state(tmp_path: Path) -> None:
    trainer = warmed(to_sync(2), WarmupStore(tmp_path))
    about = read_json(tmp_path / warmup_keys(trainer, "robust")[2] / "meta.json")
    assert (about["epoch"], about["expert"]["name"]) == (2, "robust")
    assert (about["data"]["name"], about["model"]["name"]) == ("tiny", "convnet")


# Which states stay


def thinned(folder: Path, epochs: Iterable[int], gap: Callable[[int], float]) -> list[int]:
    """The epochs that stay of a warm-up whose states were published at `epochs`, one by one."""
    store, keys = WarmupStore(folder), [f"key{epoch}" for epoch in range(max(epochs) + 1)]
    for epoch in epochs:
        store.publish(keys[epoch], epoch, {}, {})
        before = {e for e in range(epoch) if store.find(keys, e) == e}
        store.thin_out(keys[: epoch + 1], gap(epoch))
        stays = {e for e in range(epoch + 1) if store.find(keys, e) == e}
        assert epoch in stays
        ends = sorted({0, *stays})
        for lost in before - stays:
            left, right = max(e for e in ends if e < lost), min(e for e in ends if e > lost)
            assert right - left <= gap(epoch)
    return sorted(stays)


@pytest.mark.parametrize(
    ("epochs", "stay"),
    [
        (range(1, 4), [3]),
        (range(1, 9), [3, 6, 8]),
        (range(1, 25), [6, 12, 16, 21, 24]),
        (range(1, 121), [28, 49, 65, 87, 116, 120]),
        ((1, 5, 12, 20, 31), [5, 12, 20, 31]),
    ],
    ids=["three", "eight", "24", "120", "stages of a lineage"],
)
def test_states_are_ever_sparser_and_the_latest_is_always_there(
    epochs: Iterable[int], stay: list[int], tmp_path: Path
) -> None:
    """Of a state that goes, both neighbours stay, close enough; so little is trained again."""
    config = to_sync(5)
    costliest = config.experts[1]
    found = thinned(tmp_path, epochs, lambda epoch: largest_gap(config, costliest, epoch))
    assert found == stay


def test_a_warm_up_has_at_most_seven_states(tmp_path: Path) -> None:
    config = to_sync(5)
    for n in (12, 40, 77, 130):
        gap = functools.partial(largest_gap, config, config.experts[1])
        assert len(thinned(tmp_path / str(n), range(1, n + 1), gap)) <= 7


def test_an_expert_that_is_cheap_to_train_again_has_fewer_states() -> None:
    """An image costs 3 for the natural expert and 7 for the robust one."""
    natural, robust = to_sync(5).experts
    assert largest_gap(to_sync(5), robust, 40) == 10
    assert largest_gap(to_sync(5), natural, 40) == pytest.approx(10 * 7 / 3)


# Claims


def test_of_many_at_once_one_gets_the_claim(tmp_path: Path) -> None:
    barrier, claims = threading.Barrier(8), []

    def ask() -> None:
        store = WarmupStore(tmp_path)
        barrier.wait()
        claims.append(store.claim("key"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (held,) = [claim for claim in claims if claim is not None]
    held.release()
    held.release()
    assert not (tmp_path / "key" / "claim").exists()


def test_a_claim_is_free_after_its_release_an_error_and_an_early_end(tmp_path: Path) -> None:
    store = WarmupStore(tmp_path)
    diverging = with_expert(to_sync(2), "robust", optimizer=SGD(lr=1e30))
    failing = GeneralistTrainer(diverging, tiny_dataset(), model=linear_net)
    with pytest.raises(DivergedError):
        list(share_warmups(failing, store, every_epochs=2))
    assert failing.forward_images > 0
    assert not list(tmp_path.glob("*/claim"))
    stretch = share_warmups(start(to_sync(2)), store, every_epochs=2)
    next(stretch)
    (path,) = tmp_path.glob("*/claim")
    assert store.claim(path.parent.name) is None
    stretch.close()
    again = store.claim(path.parent.name)
    assert again is not None
    again.release()
    assert not path.exists()


def claim_elsewhere(store: WarmupStore, monkeypatch: pytest.MonkeyPatch) -> Claimed:
    """A claim as made on another machine, whose processes cannot be seen from here."""
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        claim = store.claim("key")
    assert claim is not None
    return claim


def let_pass(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set this machine's clock forward; no heartbeat comes meanwhile."""
    before = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: before() + seconds)


@pytest.mark.parametrize("clock", [-10_000, 0, 10_000])
def test_a_dead_claim_is_taken_over_once_and_its_holder_cannot_release_it(
    clock: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the clock of its machine says."""
    store = WarmupStore(tmp_path, stale_after_s=500)
    dead = claim_elsewhere(WarmupStore(tmp_path, stale_after_s=500), monkeypatch)
    forget(tmp_path / "key" / "claim", clock)
    assert store.claim("key") is None
    let_pass(499, monkeypatch)
    assert store.claim("key") is None
    let_pass(2, monkeypatch)
    taken = store.claim("key")
    assert taken is not None
    assert "its holder is dead" in caplog.text
    assert WarmupStore(tmp_path, stale_after_s=500).claim("key") is None
    dead.release()
    assert WarmupStore(tmp_path, stale_after_s=500).claim("key") is None
    taken.release()
    assert not (tmp_path / "key" / "claim").exists()


@pytest.mark.parametrize("clock", [-10_000, 0, 10_000])
def test_a_live_holder_keeps_its_claim(
    clock: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat in each while keeps it, whatever the clock of its machine says."""
    store = WarmupStore(tmp_path, stale_after_s=500)
    held = claim_elsewhere(WarmupStore(tmp_path, stale_after_s=500), monkeypatch)
    for beat in range(4):
        assert store.claim("key") is None
        let_pass(499, monkeypatch)
        forget(tmp_path / "key" / "claim", clock + beat)
    held.release()
    assert store.claim("key") is not None


def test_a_claim_is_kept_alive(tmp_path: Path) -> None:
    store = WarmupStore(tmp_path, stale_after_s=0.06)
    claim, path = store.claim("key"), tmp_path / "key" / "claim"
    assert claim is not None
    forget(path)
    old = path.stat().st_mtime
    while path.stat().st_mtime == old:
        time.sleep(0.01)
    claim.release()


def claim_and_wait(root: str) -> None:
    """Hold a claim until the process is killed."""
    claim = WarmupStore(Path(root)).claim("key")
    assert claim is not None
    print("claimed", flush=True)  # noqa: T201
    time.sleep(600)


@pytest.mark.slow
def test_the_claim_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    holder = in_new_process("claim_and_wait(*sys.argv[1:])", str(tmp_path), stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"claimed\n"
    store = WarmupStore(tmp_path)
    assert store.claim("key") is None
    holder.kill()
    holder.communicate()
    assert store.claim("key") is not None


def test_a_trial_that_comes_back_gets_its_claim_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, although the lease alone would wait: the machine that was lost may be alive."""
    crashed = claim_elsewhere(WarmupStore(tmp_path, owner="sweep/0001"), monkeypatch)
    assert WarmupStore(tmp_path, owner="sweep/0002").claim("key") is None
    assert WarmupStore(tmp_path).claim("key") is None
    again = WarmupStore(tmp_path, owner="sweep/0001").claim("key")
    assert again is not None
    crashed.release()
    assert WarmupStore(tmp_path).claim("key") is None
    again.release()
    assert WarmupStore(tmp_path).claim("key") is not None


def test_a_claim_that_another_trial_took_over_is_not_the_first_ones_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (WarmupStore(tmp_path, owner=f"sweep/{n}") for n in range(2))
    claim_elsewhere(first, monkeypatch)
    assert second.claim("key") is None
    let_pass(121, monkeypatch)
    taken = second.claim("key")
    assert taken is not None
    assert WarmupStore(tmp_path, owner="sweep/0").claim("key") is None


def claimed(folder: Path, trainer: GeneralistTrainer) -> list[str]:
    """The experts whose warm-up of two epochs is claimed."""
    names = warming(trainer)
    return [n for n in names if (folder / warmup_keys(trainer, n)[2] / "claim").exists()]


def test_the_costliest_expert_comes_first(tmp_path: Path) -> None:
    """An image costs 9 for the sparse expert, 7 for the robust and 3 for the natural one."""
    costlier = with_expert(three_experts(), "sparse", attack=PGD(epsilon=1.0, norm="l1", steps=3))
    epochs = share_warmups(start(costlier), WarmupStore(tmp_path), every_epochs=2)
    trained = [name for epoch in epochs if epoch for name in epoch if name.startswith("loss/")]
    assert trained == ["loss/sparse"] * 2 + ["loss/robust"] * 2 + ["loss/natural"] * 2


def test_a_trial_that_finds_a_claim_trains_the_other_expert_and_waits_without_claims(
    tmp_path: Path,
) -> None:
    config = to_sync(2)
    trainer, other = start(config), start(config)
    begun = share_warmups(other, WarmupStore(tmp_path), every_epochs=2)
    next(begun)
    assert claimed(tmp_path, other) == ["robust"]
    mine = share_warmups(trainer, WarmupStore(tmp_path), every_epochs=2)
    assert ["loss/natural" in (next(mine) or {}) for _ in range(2)] == [True, True]
    assert [next(mine) for _ in range(3)] == [None] * 3
    assert warming(trainer) == ["robust"]
    assert claimed(tmp_path, other) == ["robust"]
    assert len(list(begun)) == 1
    assert list(mine) == []
    assert trainer.forward_images == 2 * EPOCH_COST["natural"]
    assert other.forward_images == 2 * EPOCH_COST["robust"]
    assert same_bits(trainer.averages(), other.averages())


def test_a_trial_that_waits_takes_over_from_one_that_gives_up(tmp_path: Path) -> None:
    config = to_sync(2)
    begun = share_warmups(start(config), WarmupStore(tmp_path), every_epochs=2)
    next(begun)
    trainer = start(config)
    mine = share_warmups(trainer, WarmupStore(tmp_path), every_epochs=2)
    while next(mine) is not None:
        pass
    begun.close()
    assert None not in list(mine)
    assert trainer.forward_images == 2 * sum(EPOCH_COST.values())


def contend(root: str, n_processes: str, name: str) -> None:
    """Wait until all processes are ready, then train the same warm-ups; save the final state."""
    torch.set_num_threads(1)
    folder, trainer = Path(root), start(three_experts(epochs=6, sync=SyncConfig(start_epoch=5)))
    (folder / f"{name}.ready").touch()
    while len(list(folder.glob("*.ready"))) < int(n_processes):
        time.sleep(0.001)
    store = WarmupStore(folder / "store")
    for metrics in share_warmups(trainer, store, every_epochs=2):
        if metrics is None:
            time.sleep(0.001)
    torch.save({**trainer.state_dict(), "cost": trainer.forward_images}, folder / f"{name}.end")


@pytest.mark.slow
def test_processes_that_want_the_same_train_each_stretch_once(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    code = "contend(*sys.argv[1:])"
    children = [in_new_process(code, str(tmp_path), str(len(names)), name) for name in names]
    assert [child.wait() for child in children] == [0] * len(names)
    ends = [torch.load(tmp_path / f"{name}.end", weights_only=True) for name in names]
    alone = train_to(start(three_experts(epochs=6, sync=SyncConfig(start_epoch=5))), 5)
    assert sum(end["cost"] for end in ends) == alone.forward_images
    assert sum(end["cost"] > 0 for end in ends) > 1
    for end in ends:
        for name, expert in alone.state_dict()["experts"].items():
            assert same_bits(state_of(end["experts"][name]), state_of(expert))
    assert not list(tmp_path.glob("store/*/claim"))


def state_of(expert: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an expert, without the number of epochs that it adopted."""
    return {key: value for key, value in expert.items() if key != "adopted_cost"}


# Damage


def foreign(path: Path) -> None:
    """A file of torch that would run code if it were unpickled."""
    torch.save({"code": Path}, path)


def with_plain_digest(path: Path) -> None:
    body = b"made elsewhere"
    path.write_bytes(body + hashlib.sha256(body).digest())


def swapped(path: Path) -> None:
    """The complete state of another warm-up."""
    (other,) = {*path.parents[1].glob("*/2.pt")} - {path}
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [torn, flipped, emptied, foreign, with_plain_digest, swapped])
def test_what_is_damaged_is_put_aside_and_trained_again(
    damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, config = WarmupStore(tmp_path), to_sync(2)
    first = warmed(config, store)
    path = tmp_path / warmup_keys(first, "robust")[2] / "2.pt"
    damage(path)
    again = warmed(config, store)
    assert f"{path} must be as it was written, but the digest does not match" in caplog.text
    assert path.with_suffix(".damaged").is_file()
    assert again.forward_images == 2 * EPOCH_COST["robust"]
    assert same_bits(again.averages(), first.averages())
    assert warmed(config, store).forward_images == 0


def test_a_state_that_vanishes_after_it_was_found_is_trained(tmp_path: Path) -> None:
    class Losing(WarmupStore):
        def load(self, key: str, epoch: int) -> dict[str, Any] | None:
            self._file(key, epoch).unlink(missing_ok=True)
            return super().load(key, epoch)

    config = to_sync(2)
    warmed(config, WarmupStore(tmp_path))
    trainer = warmed(config, Losing(tmp_path))
    assert trainer.forward_images == 2 * sum(EPOCH_COST.values())


# Eviction

STATE = {"w": torch.zeros(1000)}
LARGE = {"w": torch.zeros(3000)}


def filled(folder: Path, **sizes: Mapping[str, Any]) -> WarmupStore:
    """A store without a limit that holds a state per key, all long unused."""
    store = WarmupStore(folder)
    for key, state in sizes.items():
        store.publish(key, 1, state, {})
        forget(folder / key / "1.pt")
    return store


def keys_in(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/*.pt")}


def test_without_a_limit_all_states_stay(tmp_path: Path) -> None:
    filled(tmp_path, a=STATE, b=LARGE, c=STATE).publish("d", 1, STATE, {})
    assert keys_in(tmp_path) == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("idle", "evicted"),
    [
        ({"a": 5000, "b": 1000, "c": 1000}, "a"),
        ({"a": 1000, "b": 1000, "c": 1000}, "b"),
        ({"a": 1000, "b": 1000, "c": 9000}, "c"),
    ],
    ids=["longest unused", "largest", "most bytes by time"],
)
def test_the_least_useful_goes_first(idle: dict[str, float], evicted: str, tmp_path: Path) -> None:
    filled(tmp_path, a=STATE, b=LARGE, c=STATE)
    for key, seconds in idle.items():
        forget(tmp_path / key / "1.pt", seconds)
    sizes = [path.stat().st_size for path in tmp_path.glob("*/1.pt")]
    WarmupStore(tmp_path, max_bytes=sum(sizes)).publish("d", 1, STATE, {})
    assert keys_in(tmp_path) == {"a", "b", "c", "d"} - {evicted}


def test_what_was_just_used_published_or_is_claimed_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = filled(tmp_path, used=STATE, claimed=STATE, idle=STATE)
    assert store.load("used", 1) is not None
    claim = store.claim("claimed")
    assert claim is not None
    with caplog.at_level(logging.INFO):
        WarmupStore(tmp_path, max_bytes=1).publish("new", 1, STATE, {})
    assert keys_in(tmp_path) == {"used", "claimed", "new"}
    assert "all are in use" in caplog.text
    claim.release()


def test_what_is_not_the_stores_own_stays(tmp_path: Path) -> None:
    """A user may name a folder that holds other things, too."""
    filled(tmp_path, a=STATE)
    others = [
        tmp_path / "a" / name for name in ("thesis.tex", "model.pt", "1.pt.txt", "study.journal")
    ]
    for path in others:
        path.write_bytes(bytes(100_000))
        forget(path)
    WarmupStore(tmp_path, max_bytes=1).publish("b", 1, STATE, {})
    assert all(path.is_file() for path in others)


def test_leftovers_of_crashes_count_and_go(tmp_path: Path) -> None:
    filled(tmp_path, a=STATE)
    leftovers = [tmp_path / "a" / ".2.pt.x1y2", tmp_path / "a" / "3.damaged"]
    for path in leftovers:
        path.write_bytes(bytes(100_000))
        forget(path)
    WarmupStore(tmp_path, max_bytes=50_000).publish("b", 1, STATE, {})
    assert not any(path.exists() for path in leftovers)
    assert keys_in(tmp_path) == {"a", "b"}


def test_what_was_evicted_is_trained_again(tmp_path: Path) -> None:
    config = to_sync(2)
    first = warmed(config, WarmupStore(tmp_path))
    for path in tmp_path.glob("*/*.pt"):
        forget(path)
    WarmupStore(tmp_path, max_bytes=1).publish("new", 1, STATE, {})
    again = warmed(config, WarmupStore(tmp_path))
    assert again.forward_images == first.forward_images
    assert same_bits(again.averages(), first.averages())


@pytest.mark.parametrize("wrong", [{"max_bytes": 0}, {"stale_after_s": 0}])
def test_wrong_limits_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=next(iter(wrong))):
        WarmupStore(tmp_path, **wrong)


def test_a_shared_run_at_other_settings_shares_nothing(tmp_path: Path) -> None:
    store = WarmupStore(tmp_path)
    warmed(to_sync(2), store)
    assert warmed(dataclasses.replace(to_sync(2), seed=1), store).reused_forward_images == 0


def test_a_model_without_a_fingerprint_shares_nothing(tmp_path: Path) -> None:
    def locked(*given: Any) -> torch.nn.Module:
        model, lock = linear_net(*given), threading.Lock()
        model.register_forward_hook(lambda *_: lock.release() if lock.locked() else None)
        return model

    trainer = GeneralistTrainer(to_sync(2), tiny_dataset(), model=locked)
    assert list(share_warmups(trainer, WarmupStore(tmp_path), every_epochs=1)) == []
    assert not list(tmp_path.glob("*/*"))
    with pytest.raises(InvalidConfigError, match="must have a fingerprint"):
        warmup_keys(trainer, "robust")
