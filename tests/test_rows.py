"""Rows of a mapped file are the rows of the file, however many of its pages are in memory; nothing else is let go."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from backends import get, rows
from backends.base import Data
from backends.conformance import make_data, make_trial
from backends.supervisor import Supervisor
from pipelines.data.parts import Part

COLUMNS = 18


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", rng.random((400_000, COLUMNS), np.float32))  # 29 MB, 7032 pages
    np.save(tmp_path / "y.npy", rng.normal(size=(400_000, 1)))
    np.save(tmp_path / "rows.npy", np.arange(400_000))
    return tmp_path


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(rows, "WINDOW", 2**18)
    monkeypatch.setattr(rows, "SMALL", 0)


def resident(folder):
    """Bytes of X.npy that are in this process' memory."""
    if not Path("/proc/self/smaps").exists():
        pytest.skip("only Linux tells what is in memory")
    with open("/proc/self/smaps") as file:
        lines = file.read().splitlines()
    starts = [place for place, line in enumerate(lines) if line.endswith(str(folder / "X.npy"))]
    return sum(int(next(line for line in lines[place:] if line.startswith("Rss:")).split()[1]) for place in starts) * 1024


def test_a_file_is_gone_through_in_blocks_without_being_in_memory_whole(folder, small_windows):
    X, most, found = Part.load(folder).X, 0, []
    for block in rows.blocks(X, 20_000):  # 1.4 MB; to look at what is in memory takes a third of a second in a large process
        found.append(block.copy())
        most = max(most, resident(folder))
    np.testing.assert_array_equal(np.concatenate(found), np.load(folder / "X.npy"))
    assert 0 < most < X.nbytes / 2  # the system maps up to 4 MB around what is read


def test_rows_are_gathered_without_the_file_being_in_memory(folder, small_windows):
    X, whole = Part.load(folder).X, np.load(folder / "X.npy")
    at = np.random.default_rng(1).integers(len(X), size=(2, 3, 5000))  # some twice
    near, places = rows.gather(X, at, np.empty((40_000, COLUMNS), np.float32))
    np.testing.assert_array_equal(near[places], whole[at])
    assert near.shape == (30_000, COLUMNS) and (np.diff(at.ravel()[np.argsort(places.ravel())]) >= 0).all()
    assert resident(folder) < X.nbytes / 2


def test_what_was_let_go_is_read_again(folder):
    X = Part.load(folder).X
    before = X.sum()
    assert resident(folder) >= X.nbytes
    Data(X, X, X, X).release()
    assert resident(folder) == 0 and X.sum() == before


@pytest.mark.parametrize("kind", ["array", "anonymous", "private", "written", "columns"])
def test_what_could_be_lost_stays(folder, kind):
    if kind == "anonymous":
        X = np.frombuffer(mmap.mmap(-1, 8 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.float32)
        X = X.reshape(-1, 8)
    elif kind == "array":
        X = np.empty((400_000, COLUMNS), np.float32)
    else:
        X = np.asarray(np.load(folder / "X.npy", mmap_mode={"private": "c", "written": "r+"}.get(kind, "c")))
    X = X[:, ::2] if kind == "columns" else X
    X[:] = 3
    rows.release(X)
    assert list(rows.blocks(X, 100)) and rows.steps_at_once(X, 256, 1000) == 0
    assert (X == 3).all()


def test_rows_are_gathered_only_where_they_touch_about_every_page(folder, small_windows):
    X = Part.load(folder).X
    assert rows.steps_at_once(X, 256, 100) == 256 and rows.steps_at_once(X, 256, 2) == 0
    assert rows.steps_at_once(np.array(X), 256, 100) == 0


def test_a_small_file_stays_in_memory(folder):
    assert rows.steps_at_once(Part.load(folder).X, 256, 100) == 0


def test_a_network_trained_on_gathered_rows_has_the_same_bits(tmp_path, monkeypatch, small_windows):
    data = make_data("multiclass")
    X, X_valid = (np.tile(values, (300, 1)) for values in (data.X, data.X_valid))
    y, y_valid = np.tile(data.y, 300), np.tile(data.y_valid, 300)
    for name, values in (("X", X), ("X_valid", X_valid)):
        np.save(tmp_path / f"{name}.npy", values.astype(np.float32))
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("X", "X_valid")]
    trials = [make_trial("multiclass", epochs=2, batch_size=64, precision="float32", seed=seed) for seed in (3, 4)]
    found = []
    for inputs in ([X.astype(np.float32), X_valid.astype(np.float32)], mapped):
        supervisor = Supervisor(get("lightning"), trials, Data(inputs[0], y, inputs[1], y_valid))
        assert bool(supervisor.stack.batches.at_once) == (inputs is mapped)
        supervisor.run()
        found.append(supervisor.results())
    for plain, ours in zip(*found, strict=True):
        np.testing.assert_array_equal(ours.weights, plain.weights)
        assert ours.history == plain.history
