"""Keras on JAX, in processes of its own: here Keras may be on TensorFlow already, and it takes one engine a process."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("jax")
pytest.importorskip("keras")

OWN = "tests/keras_on_jax.py"
# Files and a selection of their tests. The contract is one part, since its checks share compiled structures and what the
# reference did.
PARTS = {
    "the contract": ([OWN], "TestKerasOnJax or on_lightning"),
    "what is particular to it, and the stages": (
        [OWN, "tests/test_framework_faults.py", "tests/test_keras_plain.py", "tests/test_stages.py"],
        "not TestKerasOnJax and not on_lightning and (not test_stages or keras-jax)",
    ),
}
# XLA takes 8 to 10 s of a processor for each of the structures of the contract, and a third so unoptimised. What is
# particular to this backend, the stages and the commands are held by the code that users run. What was compiled is kept for the
# next run of the tests, by JAX's own hash of the program, the flags and the versions: a third less again.
FAST_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
KEPT = {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache/jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def fresh(**more):
    """The environment of a process that knows nothing of this one's pytest or Keras."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "KERAS_"))} | more


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", PARTS)
def test_its_tests_pass_in_a_process_of_their_own(part):
    files, chosen = PARTS[part]
    flags = os.environ.get("XLA_FLAGS", "") + (f" {FAST_TO_COMPILE}" if part == "the contract" else "")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", chosen, *files]
    done = subprocess.run(
        command, cwd=ROOT, env=fresh(KERAS_BACKEND="jax", XLA_FLAGS=flags, **KEPT), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout


def python(code, **more):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=fresh(**more), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_trains_where_tensorflow_is_not_installed():
    out = python(
        """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tf_keras"):
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)
sys.meta_path.insert(0, Block())
from backends import get
from backends.conformance import make_data, make_trial
from backends.supervisor import fit
trial = make_trial("binary", epochs=2, dropout=0.2, l1=1e-3)
[result] = fit(get("keras-jax"), [trial], make_data("binary"))
from backends.keras.network import to_keras
net = to_keras(trial, result.weights)
print(result.message, "|", sum(w.numpy().size for w in net.trainable_weights) == len(result.weights), "tensorflow" in sys.modules)
""",
        XLA_FLAGS=FAST_TO_COMPILE,
    )
    assert out == "completed 2 epochs | True False\n"


def test_without_jax_it_says_what_to_install():
    out = python(
        "import sys; sys.modules['jax'] = None\n"
        "from backends import get\n"
        "try: get('keras-jax')\n"
        "except ValueError as error: print(error)"
    )
    assert "backend 'keras-jax' is not installed" in out and "pip install 'deltarule[keras-jax]'" in out


def test_processes_that_one_engine_started_may_use_the_other():
    out = python(
        "import os, subprocess, sys; from backends import get\n"
        "get('keras-jax')\n"
        "print(os.environ.get('KERAS_BACKEND'))\n"
        "subprocess.run([sys.executable, '-c', \"from backends import get; print(get('keras').name)\"])"
    )
    assert sorted(out.split()) == ["None", "keras"]


@pytest.mark.slow
def test_an_experiment_runs_on_it_as_on_the_reference(deltarule, tmp_path):
    """In float64 the histories agree; resumed from a checkpoint or not is the supervisor's, and in the contract."""
    changes = (
        "data.source=iris", "train.epochs=3", "train.precision=float64", "model.hidden=[8]", "model.dropout=0.2",
        "tracking.enabled=false",
    )  # fmt: skip
    found = {}
    for backend in ("keras-jax", "reference"):
        chosen = [part for change in (*changes, f"train.backend={backend}") for part in ("--set", change)]
        deltarule("run", "--name", backend, "--params", ROOT / "params.yaml", *chosen)
        found[backend] = json.loads(next(tmp_path.glob(f"runs/*-{backend}/outputs/validate/metrics.json")).read_text())
    assert found["keras-jax"] == pytest.approx(found["reference"], rel=1e-9)
