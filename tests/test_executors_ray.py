"""The Ray executor on a real cluster: two nodes of one machine, one of them killed in the middle of its work."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
from test_executors import THREAD_LIMITS, add, alive, appear, deadly, executions, fail, loud, opened, results, variables

from pipelines import executors
from pipelines.executors import ExecutorError

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
TESTS = Path(__file__).parent
SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
# Ray's own: sockets and files that it leaves to the collector, and what it announces of its next version.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:.*accelerator visible devices:FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def on_node(folder, name, seconds, size):
    """Leave a mark with the node's name, as `counted` does with the process's; `size` bytes."""
    node = ray.get_runtime_context().get_node_id()
    (folder / f"{name}.{node}.{time.monotonic_ns()}").write_text("")
    time.sleep(seconds)
    (folder / f"{name}.done").write_text("")
    return node, bytes(size)


def travelled():
    """Where a node that has no copy of this project would find it."""
    entries = [entry for entry in sys.path if "runtime_resources" in entry]
    return [PathFinder.find_spec(name, entries) is not None for name in ("backends", "pipelines")]


@pytest.fixture(scope="module")
def nodes():
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: the names of sockets lie below it
    # Where Ray notes the cluster's address, and does not make the folder.
    os.makedirs(os.path.join(tempfile.gettempdir(), "ray"), exist_ok=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(TESTS))  # for the workers
        made = Cluster(initialize_head=True, head_node_args={**SMALL, "temp_dir": folder})
        made.add_node(**SMALL)
        yield made
        made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(nodes):
    before = signal.getsignal(signal.SIGTERM)
    with opened(f"ray:{nodes.address}", "auto") as made:
        assert signal.getsignal(signal.SIGTERM) is before
        yield made


def test_jobs_run_on_the_cluster_limited_in_threads(cluster, capfd):
    assert cluster.workers == 2
    assert results(cluster, add, *((n, 1) for n in range(9))) == list(range(1, 10))
    assert results(cluster, variables, tuple(THREAD_LIMITS)) == [THREAD_LIMITS]
    assert results(cluster, loud, ()) == ["quiet"]
    with pytest.raises(KeyError) as raised:
        results(cluster, fail, (KeyError, "name", 3))
    assert raised.value.args == ("name", 3)
    assert capfd.readouterr().out == ""


def test_the_code_of_the_driver_travels_with_the_jobs(cluster):
    assert results(cluster, travelled, ()) == [[True, True]]


def test_a_killed_node_loses_no_job_and_repeats_none_that_had_finished(nodes, cluster, tmp_path):
    names = [f"job{n}" for n in range(10)]
    node, came = nodes.worker_nodes.copy().pop(), {}

    def running_there():
        begun = [name for name in names if any(node.node_id in file.name for file in executions(tmp_path, name))]
        return [name for name in begun if not (tmp_path / f"{name}.done").exists()]

    def receive():
        # Results of 300 kB stay on the node that made them until somebody fetches them: Ray sends only small ones along.
        came.update(cluster.run(on_node, [(tmp_path, name, 0.7, 300_000) for name in names]))

    receiver = threading.Thread(target=receive)
    receiver.start()
    appear(lambda: len(list(tmp_path.glob("*.done"))) >= 3 and running_there())
    interrupted = running_there()
    node.kill_raylet(check_alive=False)
    receiver.join(60)
    nodes.remove_node(node, allow_graceful=False)
    assert [len(came[place][1]) for place in range(10)] == [300_000] * 10
    repeated = {name: len(executions(tmp_path, name)) for name in names if len(executions(tmp_path, name)) != 1}
    assert repeated == dict.fromkeys(interrupted, 2)
    nodes.add_node(**SMALL)


def test_a_job_that_ends_three_processes_is_given_up(cluster, tmp_path):
    with pytest.raises(ExecutorError, match=r"deadly\(.* was lost on ray:") as raised:
        results(cluster, deadly, (tmp_path, 99))
    assert raised.value.exit_code == 1 and len(executions(tmp_path, "deadly")) == 3
    assert results(cluster, add, (1, 1)) == [2]


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_executors
with test_executors.opened({name!r}) as cluster:
    list(cluster.run(test_executors.counted, [(Path({folder!r}), "a", 300)]))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_job_outlives_its_driver(nodes, tmp_path, how):
    code = DRIVER.format(tests=str(TESTS), folder=str(tmp_path), name=f"ray:{nodes.address}")
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=TESTS.parent, stderr=subprocess.PIPE, text=True)
    begun = appear(lambda: executions(tmp_path, "a"), seconds=60)[0]
    os.kill(driver.pid, how)
    _, said = driver.communicate(timeout=60)
    appear(lambda: not alive(int(begun.name.split(".")[1])))
    assert driver.returncode == -how, said


# -- no cluster ------------------------------------------------------------------------------------------------------------


def test_an_address_where_nobody_listens_is_told_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        with pytest.raises(ExecutorError, match=r"no Ray cluster answers at .*refused.*ray start --head") as raised:
            opened(f"ray:127.0.0.1:{taken.getsockname()[1]}")
    assert raised.value.exit_code == 2


def test_an_address_where_something_else_listens_is_told_soon(monkeypatch):
    monkeypatch.setattr(executors, "ANSWER_SECONDS", 4)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(ExecutorError, match="no answer within 4 s") as raised:
        opened(f"ray:127.0.0.1:{server.getsockname()[1]}")
    assert raised.value.exit_code == 2


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ExecutorError, match=r"pip install 'deltarule\[ray\]'") as raised:
        opened("ray:auto")
    assert raised.value.exit_code == 2
