"""A command that is a fork of a warm process (warm.py) does as one that starts cold, and starts cold where it could not."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import WARM, call, environment

import backends
from backends import children

pytestmark = pytest.mark.skipif(not WARM, reason="everything starts cold here")
IS_WARM = "import sys; print('pandas' in sys.modules)"
BYTES = ("train/model.safetensors", "train/history.csv", "train/weights.csv", "validate/metrics.json")


def run(code: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(children.command("-c", code, *arguments), capture_output=True, text=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize("backend", backends.registered())
def test_a_warm_run_and_a_cold_one_give_the_same_bytes(tmp_path, backend):
    """One spec, on each framework: outs, output, and what is said of where it ran."""
    words = ("run", "--set", "data.source=iris", "--set", "model.hidden=[8]", "--set", "model.dropout=0.2", "--set")
    (tmp_path / "params.yaml").write_text(
        f"train: {{backend: {backend}, epochs: 3}}\ntracking: {{enabled: false}}\nvalidation: {{baselines: false}}\n"
    )
    shown = []
    for cold in ("", "1"):
        done = call("deltarule", *words, "train.batch_size=16", "--name", f"c{cold}", cwd=tmp_path, DELTARULE_COLD=cold)
        shown.append([line for line in done.stdout.splitlines() if line.startswith("epoch ")])
    warm, cold = (next(tmp_path.glob(f"runs/*-{name}")) / "outputs" for name in ("c", "c1"))
    assert shown[0] == shown[1] != []
    for name in BYTES:
        assert (warm / name).read_bytes() == (cold / name).read_bytes(), name


@pytest.mark.parametrize(
    ("variables", "warm"),
    [({}, True), ({"HERE": "1"}, True), ({"OMP_NUM_THREADS": "2"}, False), ({"PYTHONHASHSEED": "3"}, False),
     ({"DELTARULE_COLD": "1"}, False)],
)  # fmt: skip
def test_a_command_is_warm_unless_libraries_would_have_read_other_variables(variables, warm):
    assert run(IS_WARM, env=environment(**variables)).stdout == f"{warm}\n"


def test_modules_of_ones_own_are_found_as_ever_and_those_that_hide_a_library_make_it_cold(tmp_path):
    (tmp_path / "own.py").write_text("where = 'here'")
    code = f"import own, pandas; {IS_WARM}; print(own.where, getattr(pandas, '__version__', 'hidden') == 'hidden')"
    assert run(code, env=environment(PYTHONPATH=str(tmp_path))).stdout == "True\nhere False\n"
    (tmp_path / "pandas.py").touch()
    assert run(code, env=environment(PYTHONPATH=str(tmp_path))).stdout == "True\nhere True\n"


def test_input_output_folder_arguments_and_exit_code_are_the_client_s(tmp_path):
    code = "import os, sys; print(os.getcwd(), sys.argv[1:], input()); print('no', file=sys.stderr); sys.exit(7)"
    done = run(code, "a b", cwd=tmp_path, input="given\n")
    assert (done.stdout, done.stderr, done.returncode) == (f"{tmp_path} ['a b'] given\n", "no\n", 7)
    failed = run("raise ValueError('this')")
    assert failed.returncode == 1 and failed.stderr.endswith("ValueError: this\n")
    with (tmp_path / "file").open("w+") as file:
        run("import os, sys; os.write(int(sys.argv[1]), b'passed on')", str(file.fileno()), pass_fds=[file.fileno()])
        file.seek(0)
        assert file.read() == "passed on"


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_reaches_the_command_and_its_end_the_one_who_waits(sign):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with subprocess.Popen(children.command("-c", code), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        pid = int(process.stdout.readline())
        process.send_signal(sign)
        assert process.stdout.read() == "" and process.wait(60) == -sign  # the end of the file: nobody holds it open
    assert pid != process.pid
    with suppress(FileNotFoundError):
        while Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            time.sleep(0.01)  # it has closed its files, and is about to end


def test_random_numbers_are_drawn_anew_in_each():
    code = "import random, tempfile, uuid, numpy; print(random.random(), uuid.uuid4(), numpy.random.rand(), tempfile.mkdtemp())"
    one, other = (run(code).stdout.split() for _ in range(2))
    assert not {*one} & {*other} and len(one) == 4 and one[3].startswith(os.environ.get("TMPDIR", "/tmp"))
