"""Engines: jobs arrive, whoever dies; what is asked of processes holds in them; no process outlives its driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from pipelines import engine
from pipelines.engine import EngineError, open_engine
from pipelines.engine.base import THREAD_LIMITS

TESTS = Path(__file__).parent


# -- jobs ----------------------------------------------------------------------------------------------------------------


def add(a, b=0):
    return a + b


def pid():
    return os.getpid()


def variables(*names):
    return {name: os.environ.get(name) for name in names}


class Odd(Exception):
    """Cannot be read again once pickled: two arguments, one kept."""

    def __init__(self, a, b):
        super().__init__(f"{a} {b}")


def fail(kind, *args):
    raise kind(*args)


def loud():
    print("noise")
    os.write(1, b"more noise\n")
    subprocess.run(["echo", "noise of another process"], check=True)
    return "quiet"


def counted(folder, name, seconds=0.0):
    """Leave a mark in `folder` for this execution, then for its end."""
    begin = folder / f"{name}.{os.getpid()}.{time.monotonic_ns()}"
    begin.write_text("")
    time.sleep(seconds)
    (folder / f"{name}.done").write_text("")
    return os.getpid()


def deadly(folder, times):
    """Kill this process the first `times` times."""
    mark = folder / f"deadly.{time.monotonic_ns()}"
    mark.write_text("")
    if len(list(folder.glob("deadly.*"))) <= times:
        print("the last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def unpicklable():
    return lambda: None


def told_warm():
    return os.environ.get("WARMED")


def warm():
    os.environ["WARMED"] = "yes"


def cold():
    raise RuntimeError("no such framework")


def executions(folder, name):
    return [file for file in folder.iterdir() if file.name.startswith(f"{name}.") and not file.name.endswith(".done")]


def appear(condition, seconds=30.0):
    """Wait for something another process does."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def pool():
    with open_engine("processes", 2) as shared:
        yield shared


@pytest.fixture(params=["here", "processes"])
def either(request, pool):
    return open_engine("here") if request.param == "here" else pool


# -- what holds for every engine -------------------------------------------------------------------------------------------


def test_jobs_return_what_they_return(either):
    assert [future.result() for future in [either.submit(add, n, b=n) for n in range(5)]] == [0, 2, 4, 6, 8]


def test_jobs_come_as_they_are_done_with_their_places(either):
    assert {place: future.result() for place, future in either.completed(add, [(n, 1) for n in range(4)])} == {
        0: 1, 1: 2, 2: 3, 3: 4,
    }  # fmt: skip


def test_an_exception_of_a_job_travels_unchanged(either):
    with pytest.raises(KeyError) as raised:
        either.submit(fail, KeyError, "name", 3).result()
    assert type(raised.value) is KeyError and raised.value.args == ("name", 3)


def test_what_a_job_prints_does_not_reach_standard_output(capfd, pool):
    assert pool.submit(loud).result() == "quiet"
    open_engine("here").submit(print, "noise").result()
    assert capfd.readouterr().out == ""


def test_here_begins_a_job_only_when_it_is_asked_for(tmp_path):
    came = open_engine("here").completed(counted, [(tmp_path, "a"), (tmp_path, "b")])
    next(came)
    assert executions(tmp_path, "a") and not executions(tmp_path, "b")


@pytest.mark.parametrize("name", ["here", "processes"])
def test_an_engine_that_was_shut_down_takes_no_job(name):
    with open_engine(name, 1) as closed:
        closed.submit(add, 1).result()
    with pytest.raises(RuntimeError, match="shut down"):
        closed.submit(add, 1)


# -- processes -----------------------------------------------------------------------------------------------------------


def test_jobs_run_in_other_processes_as_many_as_workers(pool):
    pids = {future.result() for future in [pool.submit(counted_pid, 0.2) for _ in range(6)]}
    assert len(pids) == pool.workers == 2 and os.getpid() not in pids


def counted_pid(seconds):
    time.sleep(seconds)
    return os.getpid()


def test_a_process_is_limited_in_threads_before_it_imports_anything():
    with open_engine("processes", 1, threads=3, environment={"KERAS_BACKEND": "jax"}) as limited:
        found = limited.submit(variables, *THREAD_LIMITS, "KERAS_BACKEND").result()
    assert found == {**dict.fromkeys(THREAD_LIMITS, "3"), "KERAS_BACKEND": "jax"}


def test_a_job_whose_process_dies_goes_to_a_fresh_one_and_no_other_job_is_repeated(tmp_path):
    with open_engine("processes", 2) as pool:
        done = [pool.submit(counted, tmp_path, f"early{n}") for n in range(4)]
        wait(done)
        victim, beside = (pool.submit(counted, tmp_path, name, 1.0) for name in ("victim", "beside"))
        later = [pool.submit(counted, tmp_path, f"later{n}") for n in range(4)]
        first = appear(lambda: executions(tmp_path, "victim"))[0]
        appear(lambda: executions(tmp_path, "beside"))
        os.kill(int(first.name.split(".")[1]), signal.SIGKILL)
        results = [future.result(timeout=60) for future in (*done, victim, beside, *later)]
    counts = {name: len(executions(tmp_path, name)) for name in ("victim", "beside")}
    others = [len(executions(tmp_path, f"{when}{n}")) for when in ("early", "later") for n in range(4)]
    assert len(results) == 10 and counts == {"victim": 2, "beside": 1} and others == [1] * 8


def test_a_job_may_lose_two_processes(tmp_path, pool):
    assert pool.submit(deadly, tmp_path, 2).result(timeout=60) == "survived"


def test_a_job_that_ends_three_processes_is_given_up_with_what_they_said(tmp_path, pool):
    with pytest.raises(EngineError) as raised:
        pool.submit(deadly, tmp_path, 99).result(timeout=60)
    assert len(executions(tmp_path, "deadly")) == 3
    assert raised.value.exit_code == 1
    for part in ("deadly(", "3 ended over it", "killed by signal 9", "the last words"):
        assert part in str(raised.value)
    assert pool.submit(add, 1, 1).result() == 2


def test_a_process_that_died_while_it_waited_costs_no_attempt(tmp_path):
    with open_engine("processes", 1) as pool:
        os.kill(pool.submit(pid).result(), signal.SIGKILL)
        time.sleep(0.2)
        assert pool.submit(deadly, tmp_path, 2).result(timeout=60) == "survived"


def test_a_process_that_cannot_be_started_is_told_and_tried_again_for_the_next_job(monkeypatch):
    with open_engine("processes", 1) as pool:
        os.kill(pool.submit(pid).result(), signal.SIGKILL)
        time.sleep(0.2)
        with monkeypatch.context() as without:
            without.setattr(sys, "executable", "/no/such/python")
            for _ in range(2):
                with pytest.raises(EngineError, match="no worker process could be started"):
                    pool.submit(add, 1).result(timeout=60)
        assert pool.submit(add, 1).result(timeout=60) == 1


def test_a_process_is_replaced_after_its_number_of_jobs():
    with open_engine("processes", 1, jobs_per_worker=2) as pool:
        a, b, c, d, e = [pool.submit(pid).result() for _ in range(5)]
    assert a == b != c == d != e


def test_a_process_is_warmed_before_its_first_job():
    with open_engine("processes", 1, warm=warm, jobs_per_worker=1) as pool:
        assert [pool.submit(told_warm).result() for _ in range(2)] == ["yes", "yes"]


def test_a_warm_up_that_fails_leaves_it_to_the_job_to_say_so():
    with open_engine("processes", 1, warm=cold) as pool:
        assert pool.submit(add, 1, 1).result() == 2


@pytest.mark.parametrize(
    ("fn", "args", "message"),
    [
        (fail, (Odd, 1, 2), "Odd in a worker process"),
        (fail, (SystemExit, 3), "SystemExit in a worker process"),
        (unpicklable, (), "pickle"),
        (add, (lambda: None,), "pickle"),
    ],
)
def test_what_cannot_travel_is_told_and_harms_no_other_job(pool, fn, args, message):
    future = pool.submit(fn, *args)
    with pytest.raises(Exception, match=message):
        future.result(timeout=60)
    assert pool.submit(add, 1, 1).result() == 2


def test_a_function_of_the_main_module_is_refused(pool):
    function = type(add)(add.__code__, {})
    function.__module__ = "__main__"
    with pytest.raises(EngineError, match="function of a module"):
        pool.submit(function)


def test_shutdown_now_ends_what_runs_and_cancels_what_waits(tmp_path):
    pool = open_engine("processes", 1)
    running, waiting = pool.submit(counted, tmp_path, "long", 300), pool.submit(add, 1)
    begun = appear(lambda: executions(tmp_path, "long"))[0]
    pool.shutdown(now=True)
    assert waiting.cancelled() and not alive(int(begun.name.split(".")[1]))
    with pytest.raises(EngineError, match="ended before it was done"):
        running.result(timeout=10)


def alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_engine
from pipelines.engine import open_engine
with open_engine("processes", 2) as pool:
    for future in [pool.submit(test_engine.{job}, Path({folder!r}), name, 300) for name in "ab"]:
        future.result()
"""


def holds_the_interpreter(folder, name, seconds):
    """As native code may that never lets another thread run."""
    import ctypes

    counted(folder, name)
    ctypes.PyDLL(None).sleep(seconds)


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
@pytest.mark.parametrize("job", ["counted", "holds_the_interpreter"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_its_driver(tmp_path, how, job):
    code = DRIVER.format(tests=str(TESTS), folder=str(tmp_path), job=job)
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=TESTS.parent, stderr=subprocess.PIPE, text=True, process_group=0)
    begun = appear(lambda: len(found := executions(tmp_path, "a") + executions(tmp_path, "b")) == 2 and found)
    workers = [int(file.name.split(".")[1]) for file in begun]
    os.killpg(driver.pid, how)  # as a terminal does
    _, said = driver.communicate(timeout=30)
    appear(lambda: not any(map(alive, workers)))
    assert driver.returncode == -how, said
    assert said.count("KeyboardInterrupt") <= 1


# -- names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"jobs": 1}, "here"),
        ({"jobs": 2}, "processes"),
        ({"work": 10**9, "jobs": 64}, "here"),
        ({"work": 10**12, "jobs": 64}, "processes"),
    ],
)
def test_auto_takes_processes_where_the_work_is_worth_them(asked, expected):
    with open_engine("auto", 2, **asked) as chosen:
        assert chosen.name == expected


def test_auto_stays_here_with_one_worker():
    with open_engine("auto", 1, work=10**15, jobs=100) as chosen:
        assert chosen.name == "here"


def test_one_worker_for_every_so_many_cores(monkeypatch):
    monkeypatch.setattr(engine, "cores", lambda: 8)
    with open_engine("processes", threads=4) as pool:
        assert pool.workers == 2


@pytest.mark.parametrize("name", ["threads", "ray", "ray:", "ray:host", "ray:host:port", "ray://host:1", "raay:host:1"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(EngineError, match=f"search.engine must be one of .*{name}") as raised:
        open_engine(name, 1)
    assert raised.value.exit_code == 2
