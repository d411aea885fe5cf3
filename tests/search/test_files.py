"""Files are complete or not there, and errors say which file and what to do."""

from __future__ import annotations

import json
import math
import os
import zipfile
from pathlib import Path

import pytest
import torch

from generalist_core.fingerprints import tensor_bytes
from search.errors import SweepFolderError
from search.files import (
    create_folder,
    load_sealed,
    load_tensors,
    read_json,
    read_sealed_json,
    save_sealed,
    write_json,
    write_sealed_json,
    write_text,
)
from search.folders import SweepFolder


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"kept": True})
    with pytest.raises(TypeError):
        write_json(path, {"bad": object()})
    assert read_json(path) == {"kept": True}
    write_text(path, '{"new": 1}')
    assert read_json(path) == {"new": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_file_has_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "a")
        save_sealed(tmp_path / "a.pt", {"n": 2})
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_equal_tensors_are_stored_once_and_come_back_apart(tmp_path: Path) -> None:
    """Equal in every bit: -0 is not 0, and NaN is NaN; an optimizer writes to what it loads."""
    values = [torch.full((3, 1000), value) for value in (1.0, 1.0, 0.0, -0.0, math.nan, math.nan)]
    other = [torch.ones(3000), torch.ones(1000, 3).T, torch.ones(3, 1000, dtype=torch.float64)]
    state = {"values": values, "nested": {1: (values[0].clone(), "text"), "other": other}}
    save_sealed(tmp_path / "a.pt", state, "seal")
    n_bytes = sum(t.nbytes for t in (values[0], values[2], values[3], values[4], *other))
    assert n_bytes < (tmp_path / "a.pt").stat().st_size < n_bytes + 5000
    loaded = load_sealed(tmp_path / "a.pt", "seal")
    assert loaded is not None
    found = [*loaded["values"], loaded["nested"][1][0], *loaded["nested"]["other"]]
    expected = [*values, values[0], *other]
    for one, wanted in zip(found, expected, strict=True):
        assert tensor_bytes(one) == tensor_bytes(wanted)
        assert one.stride() == wanted.stride()
    assert len({tensor.data_ptr() for tensor in found}) == len(found)
    assert loaded["nested"][1][1] == "text"
    assert values[0] is state["values"][0]


def test_tensors_come_back_and_code_does_not(tmp_path: Path) -> None:
    save_sealed(tmp_path / "a.pt", {"w": torch.arange(3), "n": 2})
    loaded = load_tensors(tmp_path / "a.pt")
    assert loaded["w"].tolist() == [0, 1, 2]
    torch.save({"code": Path}, tmp_path / "evil.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:100])
    for name in ("evil.pt", "torn.pt"):
        with pytest.raises(SweepFolderError, match=f"{name} must hold only tensors"):
            load_tensors(tmp_path / name)
    with pytest.raises(SweepFolderError, match="must exist"):
        load_tensors(tmp_path / "none.pt")


def test_deep_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 10**5)
    with pytest.raises(SweepFolderError, match=r"a\.json must be JSON, but is damaged"):
        read_json(tmp_path / "a.json")


def test_plain_torch_loads_a_sealed_file(tmp_path: Path) -> None:
    save_sealed(tmp_path / "a.pt", {"w": torch.arange(3)}, "mine")
    for mmap in (False, True):
        loaded = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap)
        assert loaded["w"].tolist() == [0, 1, 2]
    with zipfile.ZipFile(tmp_path / "a.pt") as file:
        assert file.testzip() is None
        assert file.comment.startswith(b"sha256:")


def test_the_digest_of_json_is_that_of_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed_json(path, {"b": (1, 2.5), "a": {3: None}, "nan": math.nan})
    assert str(read_sealed_json(path)) == "{'b': [1, 2.5], 'a': {'3': None}, 'nan': nan}"
    path.write_text(json.dumps(json.loads(path.read_text())))  # other white space
    read_sealed_json(path)
    for other in ("[]", "3", "{}", '{"digest": 3}', path.read_text().replace("2.5", "2.6")):
        path.write_text(other)
        with pytest.raises(SweepFolderError, match=r"a\.json must be as it was written"):
            read_sealed_json(path)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "must exist"), ('{"torn": ', "is damaged")]
)
def test_unreadable_json_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "sweep.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SweepFolderError, match=f"sweep.json .*{message}"):
        read_json(path)


def test_an_output_folder_is_new_or_empty(tmp_path: Path) -> None:
    create_folder(tmp_path / "new" / "deep")
    SweepFolder(tmp_path / "new" / "deep").lease.touch()
    create_folder(tmp_path / "new" / "deep")
    (tmp_path / "new" / "deep" / "sweep.json").write_text("{}")
    cure = r"holds a sweep\. Give another --out, or continue it: generalist-search resume .*deep$"
    with pytest.raises(SweepFolderError, match=f"new or empty.*{cure}"):
        create_folder(tmp_path / "new" / "deep")
    with pytest.raises(SweepFolderError, match=r"holds files\. Give another --out\.$"):
        create_folder(tmp_path / "new")
    with pytest.raises(SweepFolderError, match="must be writable"):
        create_folder(tmp_path / "new" / "deep" / "sweep.json" / "below-a-file")


# Sealed files


def test_a_sealed_file_comes_back(tmp_path: Path) -> None:
    path, state = tmp_path / "a.pt", {"w": torch.arange(3), "n": 2, "name": None}
    assert load_sealed(path, "mine") is None
    save_sealed(path, state, "mine")
    loaded = load_sealed(path, "mine")
    assert loaded is not None
    assert str(loaded) == str(state)
    assert list(tmp_path.iterdir()) == [path]


def test_no_bit_of_a_sealed_file_may_change(tmp_path: Path) -> None:
    """One bit of every third byte is flipped, each time another one."""
    path = tmp_path / "a.pt"
    save_sealed(path, {"n": 2}, "mine")
    content = path.read_bytes()
    for i in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[i] ^= 1 << (i % 8)
        path.write_bytes(damaged)
        with pytest.raises(SweepFolderError, match=r"a\.pt must be as it was written"):
            load_sealed(path, "mine")
    for end in (0, 5, 31, 32, 33, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(SweepFolderError, match="the digest does not match"):
            load_sealed(path, "mine")
    path.write_bytes(content)
    assert load_sealed(path, "mine") == {"n": 2}


@pytest.mark.parametrize("seal", ["", "other", "mine ", "MINE"])
def test_a_file_with_another_seal_is_refused(seal: str, tmp_path: Path) -> None:
    save_sealed(tmp_path / "a.pt", {"n": 2}, "mine")
    with pytest.raises(SweepFolderError, match="the digest does not match"):
        load_sealed(tmp_path / "a.pt", seal)


def test_a_plain_file_is_not_sealed(tmp_path: Path) -> None:
    save_sealed(tmp_path / "a.pt", {"n": 2})
    with pytest.raises(SweepFolderError, match="the digest does not match"):
        load_sealed(tmp_path / "a.pt", "mine")


def test_an_empty_folder_makes_room_for_a_file_and_a_full_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_text(tmp_path / "empty", "text")
    assert (tmp_path / "empty").read_text() == "text"
    (tmp_path / "full" / "kept").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "full", "text")
    assert [*tmp_path.glob("full/*")] == [tmp_path / "full" / "kept"]
