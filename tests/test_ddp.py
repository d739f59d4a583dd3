"""Training on several devices: real processes on gloo, started as people start them; and how such a run may end.

Each start of a rank imports torch and Lightning, so runs are shared among tests.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pytorch_lightning")

import torch
import torch.distributed as dist
from conftest import ROOT, call, environment

from backends import BackendError, draws, get, weights
from backends.base import Chunk, Data, Machine
from backends.conformance import make_data, make_trial
from backends.conformance.cases import some_weights
from backends.conformance.runs import in_folds, make_folds
from backends.lightning import rank, ranks
from backends.lightning.batches import ALONE, Share
from backends.lightning.noise import noise, upload
from backends.lightning.ranks import RankError
from backends.spec import AdamW, EarlyStopping
from backends.supervisor import Checkpoint, Supervisor, fit

pytestmark = pytest.mark.skipif(0 < torch.cuda.device_count() < 4, reason="a GPU a rank: hide the GPUs by CUDA_VISIBLE_DEVICES=")

MODEL = "outputs/train/model.safetensors"
WAIT = 120  # seconds after which something that should end is said to hang


def several(task):
    """Unlike in all that may differ in a stack, one of them stops early; 200 steps, one in five on 6 rows."""
    common = {"l1": (1e-3, 0.0, 2e-3), "l2": 2e-3, "clip_norm": 0.5, "epochs": 40}
    early = EarlyStopping(patience=2)
    return [
        make_trial(task, activation="relu", seed=1, dropout=0.3, input_dropout=0.1, **common),
        make_trial(task, activation="sigmoid", seed=2, class_weights=some_weights(task), **common),
        make_trial(task, activation="tanh", seed=1, dropout=(0.5, 0.2), early_stopping=early, **common),
    ]


def small_end(task):
    """66 rows: the last batch has 2, so that two of four ranks, the first among them, have none."""
    whole = make_data(task)
    return Data(whole.X[:66], whole.y[:66], whole.X_valid, whole.y_valid)


def spread(outputs):
    return {"spread": float(outputs.std())}


class Run:
    """A run on some devices to its end, a checkpoint taken inside its 12th epoch, and what it saw of the processes."""

    def __init__(self, trials, data, devices):
        self.trials, self.data, self.machine = trials, data, Machine(devices=devices)
        self.supervisor = Supervisor(get("lightning"), trials, data, machine=self.machine, metrics=spread)
        self.checkpoint, self.children, self.report = None, set(), self.supervisor.report
        self.supervisor.report = self._look
        self.supervisor.run()
        self.results = self.supervisor.results()

    def _look(self, chunk, losses):
        self.report(chunk, losses)
        self.children |= set(children_of(os.getpid()))
        if chunk.epoch == 11 and self.checkpoint is None:
            self.checkpoint = self.supervisor.checkpoint()


def children_of(pid):
    """Processes that `pid` and its children started and that are not zombies."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if re.search(rf"^PPid:\t{pid}$", text, re.M) and not re.search(r"^State:\tZ", text, re.M):
            found += [int(status.parent.name), *children_of(int(status.parent.name))]
    return found


def ranks_among(pids):
    """Rank -> process."""
    known = {pid: re.search(rb"\0RANK=(\d+)", Path(f"/proc/{pid}/environ").read_bytes()) for pid in pids}
    return {int(rank[1]): pid for pid, rank in known.items() if rank}


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def eventually(condition):
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def two():
    return Run(in_folds(several("multiclass")), Data.of_folds(make_folds("multiclass")), 2)


@pytest.fixture(scope="module")
def four():
    optimizer = AdamW(name="adamw", learning_rate=0.01, weight_decay=0.05)
    trials = [t.model_copy(update={"train": t.train.model_copy(update={"optimizer": optimizer})}) for t in several("binary")]
    return Run(trials, small_end("binary"), 4)


# -- shares ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 32, 1000])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 16])
def test_the_shares_of_all_ranks_are_the_whole_batch_in_order_and_nearly_alike(size, world):
    shares = [Share(rank, world).places(size) for rank in range(world)]
    assert [place for share in shares for place in share] == list(range(size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("first", [0, 1, 17, 2**27])
def test_the_noise_of_a_rank_is_that_of_its_rows_places_in_the_whole_batch(first):
    keys = draws.noise_keys([3, 4], [7, 8, 9], 2)
    found = noise(upload(keys, torch.device("cpu")), 5, 33, first).numpy().view(np.uint32)
    np.testing.assert_array_equal(found, draws.noise(keys, np.arange(first, first + 5), 33))


def test_what_one_rank_is_told_is_what_the_other_hears():
    chunk = Chunk(3, 17, np.arange(12).reshape(2, 2, 3), draws.noise_keys([1, 2], [17, 18], 3), np.full((2, 2), 0.1))
    [heard] = rank.chunks(SimpleNamespace(recv_bytes=iter([ranks.pack(chunk._asdict()), b""]).__next__))
    assert heard[:2] == (3, 17)
    for mine, theirs in zip(heard[2:], chunk[2:], strict=True):
        np.testing.assert_array_equal(mine, theirs, strict=True)


def test_the_ranks_of_one_processor_divide_its_cores(monkeypatch):
    monkeypatch.setattr("backends.lightning.stack.threads_for", lambda trials, machine: 8)
    threads = [get("lightning").stack([make_trial("binary")], machine=Machine(devices=n)).threads for n in (1, 2, 4)]
    assert threads == [8, 4, 2]


def test_more_devices_than_the_processor_should_bear_are_refused_with_a_way_out():
    most = 4 * os.cpu_count()
    get("lightning").stack([make_trial("binary")], machine=Machine(devices=most))
    with pytest.raises(BackendError, match=rf"must be at most {most} here \(4 processes a core\).*, got {most + 1}"):
        get("lightning").stack([make_trial("binary")], machine=Machine(devices=most + 1))


def test_more_devices_than_gpus_are_refused_with_a_way_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BackendError, match=r"must be at most 2 here \(one a GPU\).*, got 3; set train.devices: 2, or auto"):
        get("lightning").stack([make_trial("binary")], machine=Machine(devices=3))


# -- the same experiment --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["two", "four"])
def test_several_devices_train_the_same_weights_and_history_as_one(devices, request):
    run = request.getfixturevalue(devices)
    assert len(run.children) == run.machine.devices + 1  # real processes did it, and the launcher
    alone = fit(get("lightning"), run.trials, run.data, metrics=spread)
    assert [result.reason for result in alone].count("early_stopping") == 1
    for mine, expected in zip(run.results, alone, strict=True):
        assert (mine.reason, mine.message, mine.best_epoch, mine.steps) == (
            expected.reason, expected.message, expected.best_epoch, expected.steps,
        )  # fmt: skip
        np.testing.assert_allclose(mine.weights, expected.weights, rtol=0, atol=1e-9)
        for one, other in zip(mine.history, expected.history, strict=True):
            assert one == pytest.approx(other, rel=1e-9, abs=1e-9)


@pytest.mark.slow
def test_on_several_devices_it_resumes_to_the_same_bits(two, tmp_path):
    two.checkpoint.save(tmp_path / "half")
    half = Checkpoint.load(tmp_path / "half")
    assert half.numbers["step"] % 5 == 4  # before the short last batch of an epoch
    other = Supervisor(get("lightning"), two.trials, two.data, machine=two.machine, metrics=spread, resume=half)
    other.run()
    for mine, expected in zip(other.results(), two.results, strict=True):
        assert mine.history == expected.history
        np.testing.assert_array_equal(mine.weights, expected.weights)


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["two", "four"])
def test_no_process_and_no_group_is_left_of_a_run(devices, request):
    run = request.getfixturevalue(devices)
    assert not any(map(alive, run.children)) and not dist.is_initialized()
    assert run.supervisor.stack.share == ALONE  # it computes whole batches again
    assert not {"MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "LOCAL_RANK", "GLOO_SOCKET_IFNAME"} & set(os.environ)


def test_without_a_chunk_no_process_is_started(monkeypatch):
    monkeypatch.setattr(ranks, "Ranks", None)
    stack = get("lightning").stack([make_trial("binary")], make_data("binary"), Machine(devices=2))
    stack.drive(iter(()), lambda chunk, losses: None)


@pytest.mark.slow
def test_the_command_trains_on_two_devices_what_it_trains_on_one_and_records_one_run(tmp_path):
    import deltarule

    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    changes = ["train.devices=2", "train.precision=float64", "train.epochs=6", "model.dropout=0.2", "train.clip_norm=1"]
    done = call("deltarule", "run", "--json", *(word for change in changes for word in ("--set", change)), cwd=tmp_path)
    two = json.loads(done.stdout)
    one = deltarule.run(deltarule.load(tmp_path / "params.yaml", [*changes, "train.devices=1"]), tmp_path / "alone")
    assert two["metrics"]["validate"] == pytest.approx(one.metrics, rel=1e-9)
    found, expected = (weights.load(folder / MODEL)[1] for folder in (tmp_path / two["folder"], tmp_path / "alone"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    [kept] = json.loads(call("deltarule", "runs", "--json", cwd=tmp_path).stdout)["runs"]
    assert two["run_id"] in (kept["id"], None)


# -- how it may end -------------------------------------------------------------------------------------------------------

ENDLESS = """
import sys, time
from backends import get
from backends.base import Machine
from backends.conformance import make_data, make_trial
from backends.supervisor import fit

if __name__ == "__main__":
    def watch(number, record):
        if record["epoch"] == 3:
            print("epoch", record["epoch"], flush=True)
            time.sleep(float(sys.argv[1]))
        return False

    try:
        fit(get("lightning"), [make_trial("binary", epochs=10**6)], make_data("binary"), machine=Machine(devices=2), watch=watch)
    except BaseException as error:
        print(type(error).__name__, error, flush=True)
        raise SystemExit(7)
"""


@pytest.fixture
def endless(tmp_path, request):
    """A run on two devices that has trained for some epochs: its process, and the ids of the launcher and the ranks.

    With a parameter it rests there for so many seconds, and the ranks wait for chunks, not for each other.
    """
    rest = str(getattr(request, "param", 0))
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    run = subprocess.Popen(
        [sys.executable, script, rest],
        env=environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout.readline().startswith("epoch"), run.stderr.read()
    others = children_of(run.pid)
    assert len(others) == 3
    yield run, others
    for pid in (run.pid, *filter(alive, others)):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    run.communicate()


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_run_with_its_own_error(endless):
    run, others = endless
    killed = ranks_among(others)[1]
    os.kill(killed, signal.SIGKILL)
    said, _ = run.communicate(timeout=WAIT)
    assert run.returncode == 7
    assert "RankError rank 1 ended, and so the run of 2 ranks; start the run again" in said
    assert f"Signal 9 (SIGKILL) received by PID {killed}" in said
    eventually(lambda: not any(map(alive, others)))


@pytest.mark.slow
def test_ctrl_c_ends_all_ranks(endless):
    run, others = endless
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=WAIT)
    assert run.returncode == 7 and said.splitlines()[-1].startswith("KeyboardInterrupt")
    eventually(lambda: not any(map(alive, others)))


@pytest.mark.slow
@pytest.mark.parametrize("endless", [1000], indirect=True)
def test_ranks_end_themselves_when_the_first_is_killed(endless):
    run, others = endless
    run.kill()
    run.communicate(timeout=WAIT)
    eventually(lambda: not any(map(alive, others)))


def drive_two():
    stack = get("lightning").stack([make_trial("binary")], make_data("binary"), Machine(devices=2))
    chunk = Chunk(0, 0, np.arange(8).reshape(1, 1, 8), draws.noise_keys([3], [0], 3), np.full((1, 1), 0.1))
    stack.drive([chunk], lambda chunk, losses: None)


def sabotage(monkeypatch, folder, code):
    """What the other ranks import in torch's place."""
    (folder / "torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_rank_that_cannot_start_is_told_with_its_last_lines(tmp_path, monkeypatch):
    sabotage(monkeypatch, tmp_path, "raise ImportError('libcudart is gone')")
    with pytest.raises(RankError, match=r"(?s)^rank 0 did not start, and so .*ImportError: libcudart is gone$"):
        drive_two()


@pytest.mark.slow
def test_a_rank_that_cannot_take_up_its_job_is_told_with_its_last_lines(monkeypatch):
    monkeypatch.setattr(ranks, "Checkpoint", lambda numbers, arrays: Checkpoint({}, arrays))
    with pytest.raises(RankError, match=r"(?s)^rank \d did not start, and so .*KeyError: 'trials'.*Root Cause"):
        drive_two()


def test_a_rank_that_hangs_at_its_start_is_told_in_time(tmp_path, monkeypatch):
    sabotage(monkeypatch, tmp_path, "import time\ntime.sleep(1000)")
    monkeypatch.setattr(ranks, "START_SECONDS", 1.0)
    monkeypatch.setattr(ranks, "END_SECONDS", 0.1)
    with pytest.raises(RankError, match=r"rank 0 did not start within 1 seconds, .*; start the run again"):
        drive_two()
    assert not children_of(os.getpid())


def test_ranks_that_came_to_different_weights_are_told(monkeypatch):
    several = object.__new__(ranks.Ranks)
    several.world, several.connections = 2, {}
    monkeypatch.setattr(ranks.Ranks, "_ask", lambda self, content, asked: {0: b"some", 1: b"some"})
    several.finish()
    monkeypatch.setattr(ranks.Ranks, "_ask", lambda self, content, asked: {0: b"some", 1: b"others"})
    with pytest.raises(RankError, match=r"those of rank 1 differ from rank 0's.*; set train.devices: 1"):
        several.finish()


STARTED_BY_TORCHRUN = """
from backends import get, weights
from backends.base import Machine
from backends.conformance import make_data, make_trial
from backends.supervisor import fit
[result] = fit(get("lightning"), [make_trial("binary", epochs=3, dropout=0.2)], make_data("binary"), machine=Machine(devices=2))
print(f"digest {weights.digest(result.weights)}\\n", end="", flush=True)
"""


@pytest.mark.slow
def test_processes_that_torchs_launcher_started_train_together(tmp_path):
    (tmp_path / "script.py").write_text(STARTED_BY_TORCHRUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", tmp_path / "script.py"]
    done = subprocess.run(command, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    trial, data = make_trial("binary", epochs=3, dropout=0.2), make_data("binary")
    [expected] = fit(get("lightning"), [trial], data, machine=Machine(devices=2))
    assert re.findall("digest (.*)", done.stdout) == [weights.digest(expected.weights)] * 2, done.stderr


class OwnError(RuntimeError):
    pass


@pytest.mark.slow
def test_an_error_of_rank_0_itself_comes_out_as_it_is_and_ends_the_others():
    seen = []

    def watch(number, record):
        seen.extend(children_of(os.getpid()))
        raise OwnError("mine")

    with pytest.raises(OwnError, match="mine"):
        fit(get("lightning"), [make_trial("binary")], make_data("binary"), machine=Machine(devices=2), watch=watch)
    assert seen and not any(map(alive, seen)) and not dist.is_initialized()
