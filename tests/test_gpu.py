"""The conformance suite on an accelerator. In float64 its tolerances are the processor's; here stands what else is stated.

A GPU takes other kernels for other shapes, so a stack and its solo runs differ in their last bits: relative 1e-5 in float32,
1e-12 in float64 over the suite's few epochs. torch's TF32 stays off, as it is by default.
"""

from typing import ClassVar

import pytest

pytest.importorskip("pytorch_lightning")

import torch

from backends import get
from backends.conformance import Conformance, make_data, make_trial
from backends.supervisor import fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no accelerator that torch can use here"),
]


class TestLightningOnAGPU(Conformance):
    """The backend takes a GPU where there is one."""

    backend = "lightning"
    stack_tolerance: ClassVar[dict[str, float]] = {"float32": 1e-5, "float64": 1e-12}

    def test_it_computes_on_the_gpu(self):
        assert get("lightning").stack([make_trial("binary")]).device.type == "cuda"

    @pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
    def test_mixed_precision_learns_as_float32_does(self, precision):
        """Losses of each epoch within 0.02."""
        data = make_data("multiclass")
        found, expected = (
            fit(get("lightning"), [make_trial("multiclass", precision=p, dropout=0.2, epochs=10)], data)[0].history
            for p in (precision, "float32")
        )
        for one, other in zip(found, expected, strict=True):
            for name in ("train_loss", "val_loss"):
                assert one[name] == pytest.approx(other[name], abs=0.02)
