"""Rolling checkpoints: the newest intact one is used, damage is named, one process at a time."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from spectralgru.training.checkpoint import CheckpointStore, of_run, of_runs, save
from spectralgru.training.locks import held


def state(number: int) -> dict:
    return {"number": number, "weights": torch.full((300, 300), float(number)), "rows": [{"a": 1.5}]}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", "k" * 64)


def test_nothing_yet(store: CheckpointStore) -> None:
    assert store.load() == (None, [])


def test_the_newest_is_used(store: CheckpointStore) -> None:
    for number in (1, 2, 3):
        store.save(state(number))
    loaded, complaints = store.load()
    assert loaded is not None
    assert loaded["number"] == 3
    assert torch.equal(loaded["weights"], state(3)["weights"])
    assert complaints == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "short"])
def test_a_damaged_one_falls_back_to_the_previous_and_says_so(store: CheckpointStore, damage: str) -> None:
    store.save(state(1))
    store.save(state(2))
    content = bytearray(store.newest.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    store.newest.write_bytes(
        {"truncated": content[:-100], "empty": b"", "short": content[:20]}.get(damage, content)
    )
    loaded, complaints = store.load()
    assert loaded is not None
    assert loaded["number"] == 1
    assert len(complaints) == 1
    assert str(store.newest) in complaints[0]
    assert "damaged" in complaints[0]
    store.save(state(3))  # the damaged file must not push the intact one out
    store.newest.write_bytes(b"damaged again")
    loaded, _ = store.load()
    assert loaded is not None
    assert loaded["number"] == 1


def test_all_damaged_means_a_start_from_nothing(store: CheckpointStore) -> None:
    store.save(state(1))
    store.save(state(2))
    for path in (store.newest, store.previous):
        path.write_bytes(b"x" * 1000)
    loaded, complaints = store.load()
    assert loaded is None
    assert len(complaints) == 2


def test_killed_between_its_two_renames_the_previous_is_there(store: CheckpointStore) -> None:
    store.save(state(1))
    store.newest.replace(store.previous)
    loaded, complaints = store.load()
    assert loaded is not None
    assert loaded["number"] == 1
    assert complaints == []


def test_cleared_it_leaves_nothing_of_its_own(store: CheckpointStore) -> None:
    other = CheckpointStore(store.directory, "o" * 64)
    store.save(state(1))
    store.save(state(2))
    other.save(state(1))
    CheckpointStore(store.directory, store.key, "cuda").save(state(3))
    (store.directory / f".{'k' * 64}-cpu-abc.partial.pt").write_bytes(b"half")
    store.clear()
    assert [p.name for p in store.directory.iterdir()] == [other.newest.name]


def hold(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with held(path):
        ready.set()
        time.sleep(60)


def test_a_lock_tells_who_holds_it_and_is_free_when_its_holder_is_killed(store: CheckpointStore) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(store.lock, ready))
    process.start()
    assert ready.wait(60)
    with held(store.lock) as holder:
        assert holder == f"process {process.pid} on {os.uname().nodename}"
    assert store.lock.exists()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with held(store.lock) as holder:
        assert holder is None
    assert list(store.directory.glob("*.lock")) == []


def test_states_of_several_runs_are_taken_apart_and_put_together_again(tmp_path: Path) -> None:
    whole = {
        "position": (3, 7),
        "weights": torch.arange(12.0).view(3, 4),
        "inner": {"rows": [[1], [2, 2], []], "none": None, "each": [{"a": torch.ones(i)} for i in range(3)]},
    }
    parts = [of_run(whole, run) for run in range(3)]
    stores = [CheckpointStore(tmp_path, str(run) * 64) for run in range(3)]
    save(zip(stores, parts, strict=True))
    assert all(store.newest.stat().st_size < 3000 for store in stores)  # not the weights of all
    loaded = [store.load()[0] for store in stores]
    for order in ([0, 1, 2], [2, 0], [1]):
        again = of_runs([loaded[run] for run in order])
        assert again["position"] == (3, 7)
        assert torch.equal(again["weights"], whole["weights"][order])
        assert again["inner"]["rows"] == [whole["inner"]["rows"][run] for run in order]
        assert again["inner"]["none"] is None
        assert [len(each["a"]) for each in again["inner"]["each"]] == order
