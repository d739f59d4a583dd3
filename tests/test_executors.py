"""Executors: jobs arrive, whoever dies; workers are limited in threads; no process outlives its driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import executors
from pipelines.executors import THREAD_LIMITS, ExecutorError, open_executor

TESTS = Path(__file__).parent


def opened(name="processes", workers=2, **options):
    return open_executor(name, "reference", workers, **options)


def results(executor, fn, *jobs):
    """In the order of the jobs."""
    found = dict(executor.run(fn, jobs))
    return [found[place] for place in range(len(jobs))]


# -- jobs ----------------------------------------------------------------------------------------------------------------


def add(a, b=0):
    return a + b


def pid(seconds=0.0):
    time.sleep(seconds)
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
    with opened() as shared:
        yield shared


@pytest.fixture(params=["here", "processes"])
def either(request, pool):
    return opened("here") if request.param == "here" else pool


# -- what holds for every executor -------------------------------------------------------------------------------------------


def test_jobs_return_what_they_return_each_with_its_place(either):
    assert results(either, add, *((n, n) for n in range(5))) == [0, 2, 4, 6, 8]
    assert results(either, add) == []


def test_an_exception_of_a_job_travels_unchanged(either):
    with pytest.raises(KeyError) as raised:
        results(either, fail, (KeyError, "name", 3))
    assert type(raised.value) is KeyError and raised.value.args == ("name", 3)


def test_what_a_job_prints_does_not_reach_standard_output(capfd, pool):
    assert results(pool, loud, ()) == ["quiet"]
    results(opened("here"), print, ("noise",))
    assert capfd.readouterr().out == ""


def test_here_begins_a_job_only_when_it_is_asked_for(tmp_path):
    came = opened("here").run(counted, [(tmp_path, "a"), (tmp_path, "b")])
    next(came)
    assert executions(tmp_path, "a") and not executions(tmp_path, "b")


# -- processes -----------------------------------------------------------------------------------------------------------


def test_jobs_run_in_other_processes_as_many_as_workers_in_one_thread_each(pool):
    pids = set(results(pool, pid, *[(0.3,)] * 6))
    assert len(pids) == pool.workers == 2 and os.getpid() not in pids
    assert results(pool, variables, tuple(THREAD_LIMITS)) == [THREAD_LIMITS]


FORK_SERVER = """
import gc, os, sys
from pipelines.executors import open_executor

def look(_):
    server = os.path.realpath(f"/proc/{os.getppid()}/fd/1")
    return "pipelines.stages.curves" in sys.modules, gc.get_freeze_count() > 0, gc.isenabled(), server

if __name__ == "__main__":
    import look
    with open_executor("processes", "reference", 1, module="pipelines.stages.curves") as pool:
        print(*pool.run(look.look, [(0,)]))
"""


def test_the_fork_server_imports_what_jobs_need_and_holds_no_one_who_reads_what_the_driver_prints(tmp_path):
    (tmp_path / "look.py").write_text(FORK_SERVER)
    done = subprocess.run([sys.executable, "look.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(0, (True, True, True, '/dev/null'))"


def test_the_fork_server_is_not_fooled_by_packages_that_lie_in_the_current_folder(tmp_path):
    for name in ("pipelines", "backends"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not ours')")
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from test_executors import *\n"
    code += "with opened() as pool: assert results(pool, add, (1, 2)) == [3]"
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, check=True)


def test_a_script_needs_no_guard_for_its_main_part(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom test_executors import *\n"
                      "with opened() as pool: print(results(pool, add, (1, 2)))\n")  # fmt: skip
    done = subprocess.run([sys.executable, script], cwd=TESTS.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "[3]\n"


def test_jobs_whose_process_dies_go_to_fresh_ones_and_no_finished_job_is_repeated(tmp_path):
    with opened() as pool:
        jobs = [(tmp_path, f"early{n}") for n in range(4)] + [(tmp_path, "victim", 1.0), (tmp_path, "beside", 1.0)]
        came = pool.run(counted, jobs)
        assert {next(came)[0] for _ in range(4)} == {0, 1, 2, 3}
        first = appear(lambda: executions(tmp_path, "victim"))[0]
        os.kill(int(first.name.split(".")[1]), signal.SIGKILL)
        assert {place for place, _ in came} == {4, 5}
    assert [len(executions(tmp_path, f"early{n}")) for n in range(4)] == [1] * 4
    assert len(executions(tmp_path, "victim")) == 2


def test_a_job_may_lose_two_processes_and_one_that_dies_between_two_runs(tmp_path, pool):
    assert results(pool, deadly, (tmp_path, 2)) == ["survived"]
    os.kill(results(pool, pid, ())[0], signal.SIGKILL)
    assert results(pool, add, (1, 1)) == [2]


def test_a_job_that_ends_three_processes_is_given_up_with_what_they_said(tmp_path, pool):
    with pytest.raises(ExecutorError) as raised:
        results(pool, deadly, (tmp_path, 99))
    assert len(executions(tmp_path, "deadly")) == 3
    assert raised.value.exit_code == 1
    for part in ("deadly(", "3 times a worker process ended abruptly over it", "the last words"):
        assert part in str(raised.value)
    assert results(pool, add, (1, 1)) == [2]


def test_processes_are_replaced_after_their_number_of_jobs(monkeypatch):
    monkeypatch.setattr(executors, "JOBS_A_PROCESS", 2)
    with opened(workers=1) as pool:
        first, second = (results(pool, pid, (), (), ()) for _ in range(2))
    assert len({*first}) == len({*second}) == 1 and first != second


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
    with pytest.raises(Exception, match=message):
        results(pool, fn, args)
    assert results(pool, add, (1, 1)) == [2]


def test_closing_now_ends_what_runs(tmp_path):
    with pytest.raises(KeyboardInterrupt), opened() as pool:
        came = pool.run(counted, [(tmp_path, "short"), (tmp_path, "long", 300)])
        next(came)
        begun = appear(lambda: executions(tmp_path, "long"))[0]
        raise KeyboardInterrupt
    assert not alive(int(begun.name.split(".")[1]))


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
import test_executors
with test_executors.opened() as pool:
    list(pool.run(test_executors.{job}, [(Path({folder!r}), name, 300) for name in "ab"]))
"""


def holds_the_interpreter(folder, name, seconds):
    """As native code may that never lets another thread run."""
    import ctypes

    counted(folder, name)
    ctypes.PyDLL(None).sleep(seconds)


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
@pytest.mark.parametrize(
    ("how", "job"),
    [
        (signal.SIGINT, "counted"),
        (signal.SIGTERM, "counted"),
        (signal.SIGKILL, "counted"),
        (signal.SIGINT, "holds_the_interpreter"),  # of the others, it ends with its job
    ],
)
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


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
def test_ctrl_c_while_the_fork_server_imports_is_a_keyboard_interrupt_and_no_more(tmp_path):
    code = f"print(flush=True)\n{DRIVER.format(tests=str(TESTS), folder=str(tmp_path), job='counted')}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=TESTS.parent, process_group=0, **pipes)
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children")
    appear(lambda: any(b"forkserver" in Path(f"/proc/{one}/cmdline").read_bytes() for one in children.read_text().split()))
    time.sleep(0.3)  # of the 3 s and more that the import takes
    os.killpg(driver.pid, signal.SIGINT)
    _, said = driver.communicate(timeout=30)  # the fork server holds the pipes too
    assert driver.returncode == -signal.SIGINT, said
    assert "AttributeError" not in said and "FileNotFoundError" not in said, said


# -- names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "asked", "expected"),
    [
        (2, {"jobs": 1}, "here"),
        (2, {"jobs": 2}, "processes"),
        (2, {"work": 10**9, "jobs": 64}, "here"),
        (2, {"work": 10**12, "jobs": 64}, "processes"),
        (1, {"work": 10**15, "jobs": 100}, "here"),
    ],
)
def test_auto_takes_processes_where_the_work_is_worth_them(workers, asked, expected):
    with opened("auto", workers, **asked) as chosen:
        assert chosen.name == expected


def test_one_worker_a_core(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    with opened(workers="auto") as pool:
        assert pool.workers == 8


@pytest.mark.parametrize("name", ["threads", "ray", "ray:", "ray:host", "ray:host:port", "ray://host:1", "raay:host:1"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ExecutorError, match=f"search.engine must be one of .*{name}") as raised:
        opened(name)
    assert raised.value.exit_code == 2
