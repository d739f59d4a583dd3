"""What is decided between chunks: stopping, best weights, divergence, histories, checkpoints."""

import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from backends import draws, get, supervisor
from backends.base import Backend, Data, Losses, Signals, Stack
from backends.conformance import assert_same_result, make_data, make_trial
from backends.spec import Cosine, EarlyStopping, Model, Schedule
from backends.supervisor import Checkpoint, Supervisor, fit


class ScriptedStack(Stack):
    """Trains nothing: each epoch's validation loss is read from a script, one list a trial, and weights count the epochs."""

    def __init__(self, trials, data, machine, script, losses):
        super().__init__(trials, data, machine)
        self.script, self.step_losses, self.epochs = script, losses, 0
        self.places = list(range(len(trials)))
        self.seen = []

    def run(self, chunk):
        self.seen.append(chunk)
        count = chunk.rates.shape[1]
        losses = np.array([[self.step_losses(p, chunk.step + s) for s in range(count)] for p in self.places])
        return Losses(losses, np.full(losses.shape, 0.5))

    def predict(self, X=None):
        self.epochs += 1
        value = [np.sqrt(self.script[p][self.epochs - 1]) for p in self.places]
        return np.array(value)[:, None, None] * np.ones((1, len(self.data.y_valid), 1))

    def probe(self):
        at = 1 + np.array(self.places)[:, None]
        return Signals(at + np.array([0, 0.5]), 0.1 * at, 0.01 * at)

    def weights(self):
        return np.full((len(self.trials), 2), float(self.epochs))

    def state(self):
        return {"weights": self.weights()}

    def load(self, state):
        pass

    def keep(self, positions):
        self.places = [self.places[p] for p in positions]
        self.trials = tuple(self.trials[p] for p in positions)
        self._derive()

    def loss_and_gradients(self, flat, X, y, noise):
        raise NotImplementedError


class Scripted(Backend):
    name = "scripted"

    def __init__(self, *script, losses=lambda place, step: 1.0):
        self.script, self.losses, self.stacks = script, losses, []

    def stack(self, trials, data=None, machine=None):
        self.stacks.append(ScriptedStack(trials, data, machine, self.script, self.losses))
        return self.stacks[-1]

    def versions(self):
        return {}

    def devices(self):
        return ["cpu"]


ROWS, BATCH = 10, 4  # steps of 4, 4 and 2 rows


def data():
    return Data(np.zeros((ROWS, 3)), np.zeros((ROWS, 1)), np.zeros((5, 3)), np.zeros((5, 1)))


def trial(epochs=5, patience=None, monitor="loss", **changes):
    return make_trial(
        "regression",
        inputs=3,
        outputs=1,
        batch_size=BATCH,
        epochs=epochs,
        early_stopping=EarlyStopping(patience=patience, monitor=monitor),
        **changes,
    )


def test_the_best_epoch_is_the_first_of_equals_and_its_weights_are_the_model():
    (result,) = fit(Scripted([4.0, 1.0, 1.0, 2.0, 1.0]), [trial()], data())
    assert (result.best_epoch, result.best["val_loss"]) == (2, 1.0)
    assert result.weights.tolist() == [2.0, 2.0]
    assert (result.reason, len(result.history), result.steps) == ("completed", 5, 15)


def test_it_stops_when_patience_runs_out_and_an_equal_epoch_is_no_better_one():
    (result,) = fit(Scripted([4.0, 1.0, 1.0, 1.0, 0.25]), [trial(patience=2)], data())
    assert (result.reason, len(result.history), result.best_epoch) == ("early_stopping", 4, 2)
    assert result.message == "stopped after epoch 4: none better for 2"


def test_a_metric_can_be_monitored_and_larger_is_better_where_it_says_so():
    values = iter([0.5, 0.9, 0.9])
    result = fit(
        Scripted([1.0, 4.0, 0.25]),
        [trial(epochs=3, monitor="accuracy")],
        data(),
        metrics=lambda outputs: {"accuracy": next(values)},
        higher_is_better={"accuracy"},
    )[0]
    assert result.best_epoch == 2
    assert [record["val_accuracy"] for record in result.history] == [0.5, 0.9, 0.9]


def test_an_unknown_monitored_metric_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"monitor must name a validation metric, got 'f1'; known are: loss"):
        fit(Scripted([1.0]), [trial(monitor="f1")], data())


def test_each_column_of_the_history_is_the_number_of_its_name():
    """Losses are means over rows, not over batches; the learning rate is that of the epoch's last step."""
    backend = Scripted([9.0, 4.0], [1.0, 0.25], losses=lambda place, step: (place + 1) * [1.0, 2.0, 10.0, 3.0, 4.0, 5.0][step])
    trials = [trial(epochs=2, schedule=Cosine(name="cosine", warmup=2)) for _ in range(2)]
    for number, result in enumerate(fit(backend, trials, data(), metrics=lambda outputs: {"rmse": float(outputs[0, 0])}), 1):
        for epoch, record in enumerate(result.history, 1):
            error = number * [3.2, 3.8][epoch - 1]
            value = [[9.0, 4.0], [1.0, 0.25]][number - 1][epoch - 1]
            assert record == pytest.approx({
                "epoch": epoch, "train_loss": error, "train_penalty": 0.5, "train_objective": error + 0.5,
                "learning_rate": 0.01 * [1, 0.5 * (1 + np.cos(np.pi * 3 / 4))][epoch - 1], "val_loss": value,
                "val_rmse": value**0.5, "delta_rms_1": number, "delta_rms_2": number + 0.5, "saturated_1": 0.1 * number,
                "dead_1": 0.01 * number,
            })  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_no_number_ends_its_trial_at_that_step_with_the_reason(value):
    backend = Scripted([1.0, 0.5, 0.2], [9.0, 9.0, 9.0], losses=lambda place, step: value if (place, step) == (0, 4) else 1.0)
    wild, calm = fit(backend, [trial(epochs=3), trial(epochs=3)], data())
    assert (wild.reason, wild.steps, wild.best_epoch) == ("diverged", 5, 1)
    assert wild.message == f"diverged at step 5: the objective E + λΩ became {value}"
    assert (calm.reason, calm.steps) == ("completed", 9)


def test_a_penalty_that_is_no_number_ends_its_trial_too():
    backend = Scripted([1.0, 1.0], losses=lambda place, step: 1.0)
    run = ScriptedStack.run
    grown = [np.array([[0.5, np.inf]]), np.array([[np.inf]])]  # of an epoch: two whole batches, then the short one

    class Growing(ScriptedStack):
        def run(self, chunk):
            return run(self, chunk)._replace(penalty=grown[chunk.step > 0])

    backend.stack = lambda trials, data, machine: Growing(trials, data, machine, backend.script, backend.losses)
    (result,) = fit(backend, [trial(epochs=2)], data())
    assert (result.reason, result.steps) == ("diverged", 2)


def test_a_validation_loss_that_is_no_number_is_never_the_best():
    (result,) = fit(Scripted([1.0, np.nan, 0.1]), [trial(epochs=3)], data())
    assert (result.reason, result.best_epoch, len(result.history)) == ("diverged", 1, 1)


def test_a_trial_that_ended_has_learning_rate_zero_until_the_stack_is_half_empty_and_rebuilt():
    scripts = [[1.0, 2.0, 2.0, 2.0, 2.0]] + [[5.0 - e for e in range(5)] for _ in range(2)]
    backend = Scripted(*scripts)
    trials = [trial(patience=1), trial(epochs=3), trial(epochs=5)]
    results = fit(backend, trials, data())
    assert [len(result.history) for result in results] == [2, 3, 5]
    widths = {chunk.epoch: chunk.rates.shape[0] for chunk in backend.stacks[0].seen}
    assert widths == {0: 3, 1: 3, 2: 3, 3: 1, 4: 1}
    third = next(chunk for chunk in backend.stacks[0].seen if chunk.epoch == 2)
    assert (third.rates[0] == 0).all() and (third.rates[1:] > 0).all()


def test_an_epoch_deals_every_row_once_in_the_order_of_the_draws_and_keeps_the_short_batch():
    backend = Scripted([1.0, 1.0], [1.0, 1.0])
    fit(backend, [trial(epochs=2, seed=8), trial(epochs=2, seed=9)], data())
    seen = backend.stacks[0].seen
    assert [(chunk.epoch, chunk.step, chunk.rows.shape) for chunk in seen] == [
        (0, 0, (2, 2, 4)), (0, 2, (2, 1, 2)), (1, 3, (2, 2, 4)), (1, 5, (2, 1, 2)),
    ]  # fmt: skip
    for epoch, u, seed in ((0, 0, 8), (0, 1, 9), (1, 0, 8)):
        dealt = np.concatenate([chunk.rows[u].ravel() for chunk in seen if chunk.epoch == epoch])
        assert dealt.tolist() == draws.row_order(seed, epoch, ROWS).tolist()
    np.testing.assert_array_equal(seen[2].noise, draws.noise_keys([8, 9], [3, 4], 3))


def test_trials_come_back_in_the_order_they_were_given_though_a_stack_sorts_them():
    trials = [trial(epochs=1, activation=name) for name in ("tanh", "relu", "sigmoid")]
    backend = get("reference")
    together = fit(backend, trials, make_rows())
    for one, result in zip(trials, together, strict=True):
        assert_same_result(result, fit(backend, [one], make_rows())[0])


def make_rows():
    words = draws.raw_words(1, 98, 0, 60).reshape(-1, 3) / 2.0**64
    return Data(words[:ROWS], words[:ROWS, :1], words[10:], words[10:, :1])


def rates(schedule, epochs=4):
    from pydantic import TypeAdapter

    chosen = trial(epochs=epochs, schedule=TypeAdapter(Schedule).validate_python(schedule))
    return (supervisor.learning_rates(chosen, np.arange(3 * epochs), ROWS) / 0.01).round(6).tolist()  # η is 0.01


def test_schedules_give_the_learning_rate_of_every_step():
    assert rates({"name": "constant"}, 1) == [1, 1, 1]
    assert rates({"name": "constant", "warmup": 4}, 2) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert rates({"name": "step", "every": 1, "factor": 0.5}, 3) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert rates({"name": "step", "every": 1, "factor": 0.5, "warmup": 2}, 2) == [0.5, 1, 1, 1, 1, 0.5]
    half = [round(0.5 * (1 + np.cos(np.pi * t / 6)), 6) for t in range(6)]
    assert rates({"name": "cosine"}, 2) == half
    assert rates({"name": "cosine", "warmup": 3}, 3) == [round(1 / 3, 6), round(2 / 3, 6), 1, *half]


def test_a_checkpoint_of_other_trials_is_refused_and_one_that_is_no_checkpoint_too(tmp_path):
    saved = Supervisor(get("reference"), [make_trial("binary")], make_data("binary")).checkpoint()
    with pytest.raises(ValueError, match="belongs to other trials"):
        Supervisor(get("reference"), [make_trial("binary", seed=4)], make_data("binary"), resume=saved)
    path = tmp_path / "half.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        Checkpoint.load(path)


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def forged(arrays=lambda arrays: arrays, **numbers):
    """What someone else wrote, with a hash that is right."""

    def write(path, saved):
        Checkpoint({**saved.numbers, **numbers}, arrays(saved.arrays)).save(path)

    return write


def changed(change):
    return lambda path, saved: path.write_bytes(change(path.read_bytes()))


SPOILED = {
    "cut": changed(lambda content: content[:-100]),
    "empty": changed(lambda content: b""),
    "no checkpoint": changed(lambda content: b"cut off"),
    "a pickle": changed(lambda content: pickle.dumps({"deltarule": os.system})),
    "a byte of the length": changed(lambda content: flipped(content, 0)),
    "a byte of the numbers": changed(lambda content: flipped(content, content.index(b"steps") + 9)),
    "a byte of the weights": changed(lambda content: flipped(content, len(content) - 5)),
    "no hash": changed(lambda content: content.replace(b"sha256", b"sha25x")),
    "a folder": lambda path, saved: (path.unlink(), path.mkdir()),
    "other trials": forged(trials=[]),
    "other shapes": forged(lambda arrays: {**arrays, "losses": arrays["losses"][:, :1]}),
    "another best": forged(lambda arrays: {**arrays, "best.0": arrays["best.0"][:3]}),
    "no arrays": forged(lambda arrays: {}),
    "no step": forged(step="7"),
    "no progress": forged(progress=[{"history": []}, {"weights": 1}]),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_checkpoint_that_is_damaged_or_foreign_is_named_and_training_begins_anew(tmp_path, caplog, spoil):
    path, one, rows = tmp_path / "half.safetensors", make_trial("binary", epochs=3), make_data("binary")
    half = Supervisor(get("reference"), [one], rows)
    half.run(until_epoch=2)
    half.checkpoint().save(path)
    spoil(path, half.checkpoint())
    again = fit(get("reference"), [one], rows, checkpoint=path, keep=True)[0]
    assert_same_result(again, fit(get("reference"), [one], rows)[0])
    [told] = caplog.messages[:1]
    assert told.startswith(f"the checkpoint {path} is not used (") and told.endswith("training begins anew")


def test_checkpoints_on_a_full_disk_are_one_warning_and_written_once_there_is_room(small_disk, caplog, monkeypatch):
    monkeypatch.setattr(supervisor, "CHECKPOINT_SECONDS", -1.0)
    path, one, rows = small_disk / "half.safetensors", make_trial("binary", epochs=30), make_data("binary")
    filler, there = small_disk.fill(), []

    def halt():
        there.append(path.exists())
        if len(there) == 20:
            filler.unlink()

    result = fit(get("reference"), [one], rows, checkpoint=path, keep=True, halt=halt)[0]
    assert_same_result(result, fit(get("reference"), [one], rows)[0])
    assert not any(there[:20]) and there[-1] and Checkpoint.load(path).numbers["step"] == result.steps
    wanted = f"the checkpoint {path} cannot be written (No space left on device): training goes on, and writing is tried again"
    [told] = caplog.messages
    assert told.startswith(wanted)


def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(tmp_path):
    """A real process, a real kill -9, between and inside the writing of checkpoints."""
    path = tmp_path / "half.safetensors"
    code = (
        "from backends import get, supervisor\n"
        "from backends.conformance import make_data, make_trial\n"
        "from pathlib import Path\n"
        "supervisor.CHECKPOINT_SECONDS = 0.0\n"
        f"supervisor.fit(get('reference'), [make_trial('multiclass', dropout=0.3, epochs=4000)], make_data('multiclass'),"
        f" checkpoint=Path({str(path)!r}))\n"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code])
        deadline = time.monotonic() + 60
        before = path.stat().st_mtime_ns if path.exists() else 0
        while time.monotonic() < deadline and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.01)
        time.sleep(0.2)
        assert process.poll() is None, "the run was over before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    saved = Checkpoint.load(path)
    step, trials, rows = saved.numbers["step"], [make_trial("multiclass", dropout=0.3, epochs=4000)], make_data("multiclass")
    assert step > 0
    straight = Supervisor(get("reference"), trials, rows)
    straight.run(until_step=step)
    expected = straight.checkpoint()
    assert saved.numbers == expected.numbers | {"trials": saved.numbers["trials"]}
    for name, value in expected.arrays.items():
        np.testing.assert_array_equal(saved.arrays[name], value, err_msg=name)


def test_model_refuses_a_list_of_dropouts_of_another_length():
    with pytest.raises(ValueError, match="dropout must be one number or 2, one a hidden layer, got 3"):
        Model(hidden=(4, 4), dropout=(0.1, 0.2, 0.3))
