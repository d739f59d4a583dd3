"""One layout of weights, in memory and in files."""

import errno
import os

import numpy as np
import pytest

from backends import weights
from backends.conformance import make_trial


def test_parameters_lie_layer_by_layer_without_gaps():
    trial = make_trial("multiclass", hidden=(9, 5))
    slots = weights.layout(trial)
    assert [(s.layer, s.name, s.shape) for s in slots] == [
        (0, "weight", (7, 9)), (0, "bias", (9,)),
        (1, "weight", (9, 5)), (1, "bias", (5,)),
        (2, "weight", (5, 3)), (2, "bias", (3,)),
    ]  # fmt: skip
    assert [s.start for s in slots[1:]] == [s.stop for s in slots[:-1]]
    assert slots[-1].stop == 7 * 9 + 9 + 9 * 5 + 5 + 5 * 3 + 3


def test_penalties_lie_on_weight_matrices_alone_one_number_a_layer():
    trial = make_trial("multiclass", l1=(0.1, 0.2, 0.3), l2=(0.5, 0.0, 0.7))
    l1, l2 = (weights.unpack(trial, flat[0]) for flat in weights.penalties([trial]))
    assert [float(l1[f"layers.{i}.weight"].mean()) for i in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    assert [float(l2[f"layers.{i}.weight"].mean()) for i in range(3)] == pytest.approx([0.5, 0.0, 0.7])
    assert not any(part[f"layers.{i}.bias"].any() for part in (l1, l2) for i in range(3))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_file_gives_back_the_trial_and_every_bit_and_is_the_same_file_each_time(tmp_path, precision):
    trial = make_trial("binary", precision=precision, dropout=(0.1, 0.2), l1=1e-3)
    flat = weights.initial([trial])[0]
    for name in ("a", "b"):
        weights.save(tmp_path / name, trial, flat)
    loaded, again = weights.load(tmp_path / "a")
    assert loaded == trial
    np.testing.assert_array_equal(again, flat)
    assert again.dtype == precision
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"does not hold weights that deltarule wrote"):
        weights.load(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out"
    weights.write_atomically(path, b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match=f"full: '{path}'"):
        weights.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match=f"must be a file, and is a device or a pipe: '{tmp_path}/pipe'"):
        weights.write_atomically(tmp_path / "pipe", b"new")
    assert (tmp_path / "pipe").is_fifo() and len(os.listdir(tmp_path)) == 1
