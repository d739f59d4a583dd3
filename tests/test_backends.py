"""The registry, and what holds between backends rather than within one."""

import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest

from backends import BackendError, get, losses, registered, weights
from backends.base import Machine, activation_groups, check_stackable, threads_for
from backends.conformance import TASKS, make_data, make_trial
from backends.supervisor import fit

OURS = ("reference", "lightning", "keras")  # keras-jax needs a process of its own: tests/keras_on_jax.py


def test_every_backend_of_ours_is_registered():
    assert {*OURS, "keras-jax"} <= set(registered())


def test_an_unknown_backend_is_refused_with_the_nearest_name():
    with pytest.raises(BackendError, match="got 'kears'; did you mean keras"):
        get("kears")


def test_a_backend_whose_framework_is_missing_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from backends import get\n"
        "try: get('lightning')\n"
        "except ValueError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "backend 'lightning' is not installed" in said
    assert "pip install 'deltarule[lightning]'" in said


def test_another_distribution_can_register_a_backend(monkeypatch):
    from importlib.metadata import EntryPoint

    plugin = EntryPoint("mine", "backends.reference:Reference", "deltarule.backends")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [plugin] if group == "deltarule.backends" else [])
    assert get("mine").name == "reference"


def test_the_old_name_of_losses_works_with_a_warning_as_plug_ins_import_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "backends.tasks", raising=False)
    with pytest.warns(DeprecationWarning, match="now backends.losses"):
        from backends.tasks import row_losses
    assert row_losses is losses.row_losses


@pytest.mark.parametrize("task", TASKS)
def test_weights_trained_by_one_backend_predict_the_same_on_any_other(task, tmp_path):
    """In float32, within 1e-5, through the file."""
    trial, rows = make_trial(task, precision="float32", epochs=4, dropout=0.2, activation="tanh"), make_data(task)
    outputs = {}
    for trainer in OURS:
        result = fit(get(trainer), [trial], rows)[0]
        weights.save(tmp_path / trainer, trial, result.weights)
        for predictor in OURS:
            loaded, flat = weights.load(tmp_path / trainer)
            stack = get(predictor).stack([loaded])
            stack.load({"weights": flat[None]})
            outputs[trainer, predictor] = stack.predict(rows.X_valid)
    for trainer in OURS:
        for one, other in permutations(OURS, 2):
            np.testing.assert_allclose(outputs[trainer, one], outputs[trainer, other], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_more_devices_than_a_backend_can_use_are_refused_with_a_way_out(name):
    with pytest.raises(ValueError, match=r"train\.devices"):
        get(name).stack([make_trial("binary")], make_data("binary"), Machine(devices=10_000))


def test_trials_of_different_structure_do_not_stack():
    with pytest.raises(ValueError, match="must share task, layers"):
        check_stackable([make_trial("binary"), make_trial("binary", hidden=(4,))])


def test_trials_that_differ_in_values_alone_stack_when_sorted_by_activation():
    trials = [make_trial("binary", activation=a, l1=0.1 * k, seed=k) for k, a in enumerate(("relu", "relu", "tanh"))]
    check_stackable(trials)
    assert activation_groups(trials) == (("relu", 0, 2), ("tanh", 2, 3))
    with pytest.raises(ValueError, match="sorted by activation"):
        check_stackable([trials[0], trials[2], trials[1]])


def test_small_nets_get_one_thread_and_a_stated_number_is_kept():
    trial = make_trial("binary")
    assert threads_for([trial], Machine()) == 1
    assert threads_for([trial], Machine(threads=3)) == 3


@pytest.mark.parametrize(("limit", "cores"), [("3", 3), ("", None), ("no", None), ("0", None)])
def test_a_large_step_takes_no_more_threads_than_the_user_allows(limit, cores, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 4, 5, 6, 7}, raising=False)
    large = make_trial("multiclass", hidden=(2048, 2048), batch_size=1024)
    assert threads_for([large], Machine()) == (cores or 5)
    medium = make_trial("multiclass", hidden=(256, 128), batch_size=128)
    assert threads_for([medium] * 64, Machine()) == 1, "as it has alone: sums would be rounded otherwise"
