"""A network as ONNX computes what the reference computes, with the activations of theory.md, and says what goes in and out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from backends import BackendError, weights
from backends.activations import ACTIVATIONS
from backends.spec import Trial
from pipelines.export.onnx import TOLERANCE, difference, save_onnx, to_onnx
from pipelines.stages.networks import predict

pytest.importorskip("onnxruntime")


def case(activation: str, hidden: list[int], precision: str = "float32", inputs: int = 7, scale: float = 3.0):
    """A network with weights and biases that are not small, so that both sides of an activation are reached."""
    model = {"hidden": hidden, "activation": activation, "slope": 0.03}
    trial = Trial(
        seed=3, task="multiclass", inputs=inputs, outputs=4, model=model, train={"backend": "reference", "precision": precision}
    )
    flat = weights.initial([trial])[0]
    rng = np.random.default_rng(0)
    flat = (flat + rng.normal(0, 0.1, flat.shape)).astype(flat.dtype)
    X = rng.normal(0, scale, (50, inputs)).astype(np.float32)
    X[0], X[1] = 0.0, 60.0
    return trial, flat, X, predict(trial, flat, X)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[], [5], [512, 64] + [32] * 6], ids=["none", "one", "eight"])
def test_onnxruntime_agrees_with_the_reference(activation, hidden):
    trial, flat, X, expected = case(activation, hidden)
    assert difference(to_onnx(trial, flat, {}).SerializeToString(), X, expected) < TOLERANCE / 10


def test_any_number_of_rows_goes_in_and_what_they_are_stands_in_the_file(tmp_path):
    import onnx
    import onnxruntime

    trial, flat, X, expected = case("gelu", [6], "float64")
    gap = save_onnx(tmp_path / "network.onnx", trial, flat, X, expected, {"inputs": ["Ω", "b"], "classes": ["x"]})
    assert gap < TOLERANCE
    assert json.loads({p.key: p.value for p in onnx.load(tmp_path / "network.onnx").metadata_props}["inputs"]) == ["Ω", "b"]
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for rows in (1, 3, 50):
        assert np.allclose(session.run(["outputs"], {"inputs": X[:rows]})[0], expected[:rows], rtol=1e-4, atol=1e-4)


def test_the_same_network_gives_the_same_bytes(tmp_path):
    trial, flat, X, expected = case("silu", [6])
    for name in ("a", "b"):
        save_onnx(tmp_path / name, trial, flat, X, expected, {"inputs": ["a"]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_that_does_not_agree_is_not_written(tmp_path):
    trial, flat, X, expected = case("tanh", [6])
    with pytest.raises(BackendError, match=r"onnxruntime must compute what the reference does, to 1e-05 .* got 0\.\d+"):
        save_onnx(tmp_path / "network.onnx", trial, flat, X, expected * 1.01, {})
    assert not [*tmp_path.iterdir()]


def test_what_must_be_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"onnx and onnxruntime must be installed .* pip install 'deltarule\[onnx\]'"):
        save_onnx(tmp_path / "network.onnx", *case("tanh", [6]), {})
