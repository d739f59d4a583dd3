"""Faults of the frameworks' own code, planted into its functions one at a time: a check of the contract sees each.

What tests/test_conformance_teeth.py plants into a plug-in of plain formulas, a framework does by paths of its own: for large
networks, in 16 bits, in compiled code. Keras takes one engine a process, so tests/test_keras_jax.py runs this file once more.
"""

import os
from functools import reduce
from importlib import import_module
from typing import NamedTuple

import pytest
from test_shared_faults import plant

from backends import get
from backends.conformance import Conformance

SUITE = Conformance()
ON_JAX = os.environ.get("KERAS_BACKEND") == "jax"
LARGE = ("a_large_network_takes_the_references_steps", "adamw")
LINEAR = ("a_network_without_hidden_layers_takes_the_references_steps", "multiclass")
ENDED = ("a_trial_that_ended_stays_as_it_is_and_spoils_no_other", "adamw")
KEPT = ("trials_that_are_kept_go_on_in_the_order_that_was_asked_for",)
SIGNALS = ("signals_are_the_references_with_dead_and_saturated_units_and_rows_beyond_the_first_1024",)
FOLDS = ("each_trial_is_probed_and_validated_on_the_rows_of_its_own_fold",)
RULE = ("gradients_and_local_gradients_are_the_delta_rule", "three classes", True)
RESULTS = ("results_and_signals_are_the_references",)
ROWS = ("any_number_of_rows_is_predicted_and_the_validation_rows_without_any",)
SIXTEEN_BITS = ("products_alone_are_in_16_bits_and_sums_weights_and_steps_in_float32",)


class Fault(NamedTuple):
    """In `owner`, a module of backends/ or a class in one, `old` becomes `new` in the function `name`."""

    what: str
    owner: str
    name: str
    old: str
    new: str
    check: tuple[object, ...] = LARGE


OF_LIGHTNING = [
    Fault("a fused ε of the default", "optimizer", "fused_adam", "eps=o.epsilon", "eps=1e-8"),
    Fault("a fused β1 of the default", "optimizer", "fused_adam", "beta1=o.beta1", "beta1=0.9"),
    Fault("a fused β2 of the default", "optimizer", "fused_adam", "beta2=o.beta2", "beta2=0.999"),
    Fault("one fused decay for all", "optimizer", "fused_adam", "=shrink", "=decay[0]"),
    Fault("one fused rate for all", "optimizer", "fused_adam", "lr=rate", "lr=float(eta[0])"),
    Fault("a fused decay left out", "optimizer", "fused_adam", "FUSED[o.name]", 'FUSED["adam"]'),
    Fault("a fused t from 0", "optimizer", "fused_adam", "float(t)", "float(t - 1)"),
    Fault(
        "the λ of the first block for all", "stack.LightningStack", "_penalise", "torch.split(values, trials)",
        "(v := torch.split(values, trials)) and [v[0], v[0][: len(v[-1])]]",
    ),
    Fault("dead in the first rows probed", "stack.LightningStack", "probe", "torch.stack(layer).amax(0)", "layer[0]", SIGNALS),
    Fault("λ2 of L1's block", "stack", "_penalty", "torch.sign(W, out=h).mul_(l1)", "torch.sign(W, out=h).mul_(l1 + l2)"),
    Fault("products in float32", "network", "product", "a.to(bits), b.to(bits)", "a, b", SIXTEEN_BITS),
    Fault("one factor a bit larger", "network", "product", "b.to(bits)).to", "b.to(bits) * (1 + 2**-7)).to", SIXTEEN_BITS),
    Fault("the gradient's products in float32", "network.Network", "gradient", "own, bits)", "own, None)", SIXTEEN_BITS),
    Fault("the way back in float32", "network.Network", "backward", "[number], bits)", "[number], None)", SIXTEEN_BITS),
    Fault(
        "weights in 16 bits", "stack.LightningStack", "run", "with self._computing():",
        "with self._computing():\n        self.network.flat.copy_(self.network.flat.to(self.bits))", SIXTEEN_BITS,
    ),
]  # fmt: skip
# On every engine of Keras.
OF_KERAS = [
    Fault("clipping upwards", "program", "clipped", "s > limit", "s < limit"),
    Fault("λ2 without the 2", "program", "penalty", "half + second", "half"),
    Fault("a loss without its weights", "program.Program", "_backward", "if self.weighed else", "if False else", RULE),
    Fault(
        "a loss without the weights of rows",
        "program.Program",
        "_backward",
        "self.task, d, self.outputs",
        "self.task, d[..., :3], self.outputs",
    ),
    Fault("a decay of the first trial", "program.Program", "_moved", "number.value for", "number.value[:1] for"),
    Fault("the first fold for all", "stack.KerasStack", "_own", "values, chosen", "values, 0 * chosen", FOLDS),
    Fault("a block of rows left out", "stack.KerasStack", "predict", "start + PREDICT_ROWS]", "start + 10]", ROWS),
    Fault("an activation cut elsewhere", "program.Program", "adopt", "[start for", "[start - 1 for", RULE),
]
OF_ENGINE = {
    "keras": [
        Fault("the noise of the first step", "tensorflow.TensorFlowProgram", "_run", "i - start]", "0 * i]", KEPT),
        Fault("β corrected one step late", "tensorflow.TensorFlowProgram", "_run", "corrected[i])", "corrected[0])", LINEAR),
        Fault("saturated at any share", "tensorflow.TensorFlowProgram", "_probe", "s < 0.05", "s < 0.06", SIGNALS),
        Fault("a share of all rows", "tensorflow", "_share", "/ size", "/ 1024.0", RESULTS),
    ],
    "keras-jax": [
        Fault("a clipping norm of the last piece", "program", "clipped", "for h in scaled)", "for h in scaled[-1:])"),
        Fault("β corrected one step late", "jax.JaxProgram", "_steps", "_at(corrected, i, 0)", "_at(corrected, 0, 0)", LINEAR),
        Fault("one rate for all steps", "jax.JaxProgram", "_steps", "_at(rates, i, 1)", "_at(rates, 0, 1)[::-1]", LINEAR),
        Fault(
            "a padded step carried out", "jax.JaxProgram", "_steps", "jnp.minimum(start + block, steps)", "start + block", LINEAR
        ),
        Fault("φ of the neighbours", "jax.SelectedActivation", "each", 'side="right"', 'side="left"', RULE),
        Fault("a part of the probe left out", "jax.JaxProgram", "_signals", "peak.max(0)", "peak[0]", SIGNALS),
    ],
}
HERE = [("keras-jax", f) for f in (*OF_KERAS, *OF_ENGINE["keras-jax"])] if ON_JAX else [
    *(("lightning", f) for f in OF_LIGHTNING), *(("keras", f) for f in (*OF_KERAS, *OF_ENGINE["keras"])),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "fault"), HERE, ids=[f"{backend}: {fault.what}" for backend, fault in HERE])
def test_a_fault_of_a_frameworks_own_code_is_seen(backend, fault, monkeypatch):
    subject, (check, *arguments) = get(backend), fault.check
    if backend != "lightning":
        monkeypatch.setattr("backends.keras.stack._idle", [])  # what was compiled without the fault
    module, *inner = fault.owner.split(".")
    folder = "lightning" if backend == "lightning" else "keras"
    plant(monkeypatch, reduce(getattr, inner, import_module(f"backends.{folder}.{module}")), *fault[2:5])
    with pytest.raises(AssertionError):
        if fault.check is SIXTEEN_BITS:
            import test_lightning

            getattr(test_lightning, f"test_{check}")("bf16-mixed")
        else:
            getattr(SUITE, f"test_{check}")(subject, *arguments)
