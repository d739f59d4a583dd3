"""A network as an ONNX file, for programs that know neither Python nor any of the frameworks; the only importer of onnx.

Layers are MatMul and Add. An activation is the same line as everywhere (backends/activations.py), carried out on symbols that
write down the operations: so ONNX computes what docs/theory.md says, and not its own idea of a gelu or a leaky_relu.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends import BackendError, weights
from backends.activations import ACTIVATIONS
from backends.base import NDArray
from backends.spec import Dense, Trial

OPSET, IR = 17, 9  # of 2022: onnxruntime from 1.14 reads them
INPUTS, OUTPUTS = "inputs", "outputs"
# Of the largest output, between onnxruntime and the reference in float32: measured 6.5e-7 at most, over all activations, widths
# to 512 and depths to 8 (tests/test_onnx.py).
TOLERANCE = 1e-5


class Graph:
    """Nodes and constants so far; and the operations that activations are written against, as NumPy and torch are elsewhere."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, name: str = "") -> Symbol:
        """A number or an array, in float32."""
        from onnx import numpy_helper

        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
        return Symbol(self, name)

    def node(self, kind: str, *inputs: Any, name: str = "") -> Symbol:
        """The result of an operation on symbols and numbers."""
        from onnx import helper

        names = [one.name if isinstance(one, Symbol) else self.constant(one).name for one in inputs]
        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [name]))
        return Symbol(self, name)

    def where(self, condition: Symbol, here: Any, there: Any) -> Symbol:
        return self.node("Where", condition, here, there)

    def exp(self, v: Symbol) -> Symbol:
        return self.node("Exp", v)

    def tanh(self, v: Symbol) -> Symbol:
        return self.node("Tanh", v)

    def erf(self, v: Symbol) -> Symbol:
        return self.node("Erf", v)

    def expm1(self, v: Symbol) -> Symbol:
        """ONNX has none: e^v - 1, which near 0 is off by 6e-8."""
        return self.exp(v) - 1.0

    def log1p(self, v: Symbol) -> Symbol:
        """ONNX has none: log(1 + v), which near 0 is off by 6e-8."""
        return self.node("Log", v + 1.0)


def _operator(kind: str, swapped: bool = False) -> Callable[[Any, Any], Any]:
    def operate(self: Symbol, other: Any) -> Symbol:
        return self.graph.node(kind, *((other, self) if swapped else (self, other)))

    return operate


@dataclass(frozen=True)
class Symbol:
    """A value of the graph, which can be reckoned with."""

    graph: Graph
    name: str

    __add__ = __radd__ = _operator("Add")
    __mul__ = __rmul__ = _operator("Mul")
    __sub__, __rsub__ = _operator("Sub"), _operator("Sub", swapped=True)
    __truediv__ = _operator("Div")
    __gt__ = _operator("Greater")
    __le__ = _operator("LessOrEqual")

    def __neg__(self) -> Symbol:
        return self.graph.node("Neg", self)


def _dense(graph: Graph, layer: Dense, x: Symbol, own: dict[str, NDArray], number: int) -> Symbol:
    product = graph.node("MatMul", x, graph.constant(own["weight"], f"layers.{number}.weight"))
    return product + graph.constant(own["bias"], f"layers.{number}.bias")


LAYERS: dict[str, Callable[..., Symbol]] = {"dense": _dense}


def to_onnx(trial: Trial, flat: NDArray, about: dict[str, Any]) -> Any:
    """The network with the weights (P,): an onnx.ModelProto.

    Takes `inputs` (n, I) float32, preprocessed as the training rows were, and gives `outputs` (n, O) before sigmoid or softmax.
    `about` is kept in it as metadata: names of inputs and of classes, say.
    """
    from onnx import TensorProto, helper

    graph, parameters = Graph(), weights.unpack(trial, flat)
    x = Symbol(graph, INPUTS)
    for number, layer in enumerate(trial.layers):
        own = {name: parameters[f"layers.{number}.{name}"] for name in layer.parameters()}
        x = LAYERS[layer.kind](graph, layer, x, own, number)
        if number < len(trial.model.hidden):
            x = ACTIVATIONS[trial.model.activation].value(graph, x, trial.model.slope)
    graph.node("Identity", x, name=OUTPUTS)
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])]
        for name, size in ((INPUTS, trial.inputs), (OUTPUTS, trial.outputs))
    )
    body = helper.make_graph(graph.nodes, "network", inputs, outputs, graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="deltarule")
    helper.set_model_props(model, {key: json.dumps(value, ensure_ascii=False) for key, value in about.items()})
    return model


def save_onnx(path: Path, trial: Trial, flat: NDArray, X: NDArray, expected: NDArray, about: dict[str, Any]) -> float:
    """Write the file, once onnxruntime gives what is `expected` (n, O) of rows X (n, I); the largest difference found.

    Relative to the largest output. Raises BackendError where onnx or onnxruntime is missing, or the two do not agree.
    """
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise BackendError(f"{' and '.join(missing)} must be installed for an ONNX file; install: pip install 'deltarule[onnx]'")
    import onnx

    model = to_onnx(trial, flat, about)
    onnx.checker.check_model(model)
    content = model.SerializeToString(deterministic=True)
    gap = difference(content, X, expected)
    if not gap <= TOLERANCE:
        raise BackendError(
            f"onnxruntime must compute what the reference does, to {TOLERANCE:g} of the largest output; got {gap:.2g}"
        )
    weights.write_atomically(path, content)
    return gap


def difference(model: bytes, X: NDArray, expected: NDArray) -> float:
    """Between onnxruntime's outputs and those expected, relative to the largest of them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = session.run([OUTPUTS], {INPUTS: X.astype(np.float32)})[0]
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
