"""The command line: one clear message and the right exit code, never a traceback; --json is one line."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from importlib import import_module

import fuzz
import pytest
from conftest import BIN, ROOT, empty_store

from pipelines.cli.app import OUR_ERRORS

COMMANDS = ("split", "train", "validate", "test", "sync", "run", "ui", "backends", "schema", "spec")
WITH_A_SPEC = ("split", "train", "validate", "test", "sync", "run", "ui", "spec")
# Small and quick; digits, because it is the default.
SPEC = """
model: {hidden: [8], activation: tanh}
train: {backend: reference, epochs: 2, batch_size: 256}
validation: {baselines: false}
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "params.yaml").write_text(SPEC)
    empty_store(tmp_path)


def test_help_names_every_command(deltarule):
    alone, asked = deltarule().stdout, deltarule("--help").stdout
    assert alone == asked
    assert all(command in asked for command in COMMANDS)
    assert "Usage: deltarule spec" in deltarule("spec", "--help").stdout
    groups = ["Options", "Start", "Run", "Search", "Compare", "Prove", "Serve"]
    assert [line.split()[1] for line in asked.splitlines() if line.startswith("╭─")] == groups
    bare = deltarule("study", check=False)
    assert (bare.returncode, bare.stderr) == (2, "") and "export" in bare.stdout


def test_the_errors_that_are_told_in_one_line_are_where_the_command_looks_for_them():
    for module, name, _ in OUR_ERRORS:
        assert issubclass(getattr(import_module(module), name), Exception), (module, name)


@pytest.mark.parametrize("command", WITH_A_SPEC)
def test_a_wrong_value_is_told_by_line_before_anything_runs_and_so_is_a_missing_spec(deltarule, tmp_path, command):
    (tmp_path / "params.yaml").write_text("model:\n  dropout: 1.5\n")
    done = deltarule(command, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("params.yaml:2: model.dropout must be a number in [0, 1) or a list of such")
    assert len(done.stderr.splitlines()) == 1 and not done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["params.yaml"]
    done = deltarule(command, "--params", "elsewhere.yaml", check=False)
    assert done.returncode == 2 and done.stderr.startswith("elsewhere.yaml: no such file")


@pytest.mark.parametrize("params", ["fifo", "/dev/zero", "."])
def test_what_is_no_file_is_no_spec_and_is_not_waited_for(deltarule, tmp_path, params):
    os.mkfifo(tmp_path / "fifo")
    done = deltarule("spec", "--params", params, check=False)
    assert done.returncode == 2 and "give the path of a YAML file" in done.stderr


def test_control_characters_of_a_table_are_shown_and_not_sent(deltarule, tmp_path):
    (tmp_path / "t.csv").write_text("a\x1b[31m,b\u202eé,y\n" + "1,\x07,p\n2,\x9b2J,q\n" * 20)
    for options in ((), ("--json",)):
        done = deltarule("data", "--file", "t.csv", "--target", "y", *options, check=False)
        assert re.search(r"a\\+(x|u00)1b\[31m", done.stdout) and not re.search(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", done.stdout + done.stderr
        )


def test_what_a_terminal_has_no_character_for_ends_no_run(deltarule, spec, tmp_path):
    (tmp_path / "é.csv").write_text("a,y\n" + "".join(f"{row},{row % 2}\n" for row in range(40)))
    of_the_file = ("--set", "data.source=é.csv", "--set", "data.target=y", "--set", "tracking.enabled=false")
    assert r"\xe9.csv" in deltarule("run", *of_the_file, PYTHONIOENCODING="ascii:strict").stdout


def test_mutants_of_a_spec_are_refused_by_a_sentence_or_train():
    assert fuzz.main(["--mutants", "400", "--trained", "12", "--seed", "3"]) == 0


def test_a_launch_whose_data_cannot_be_used_leaves_no_folder(deltarule, tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n1,p\n2,q\n")
    (tmp_path / "params.yaml").write_text(SPEC + "data: {source: t.csv, target: y}\n")
    done = deltarule("run", check=False)
    assert done.returncode == 2 and "each class must have at least 3 different rows" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("spec", "--bogus"), "No such option: --bogus"),
        (("trian",), "No such command 'trian'"),
        (("spec", "--set", "model.activatoin=tanh"), "did you mean activation?"),
        (("spec", "--set", "model.activation"), "must have the form path=value"),
        (("spec", "--set", "train.backend=kears"), "did you mean keras?"),
        (("ui", "--port", "0"), "--port"),
        (("study", "export", "s", "--trial", "9"), "--trial goes with --as spec"),
    ],
)
def test_bad_options_are_told(deltarule, spec, arguments, told):
    done = deltarule(*arguments, check=False)
    assert done.returncode == 2
    assert told in done.stderr and "Traceback" not in done.stderr


def test_debug_shows_the_traceback(deltarule, spec):
    for arguments in (("--debug", "spec", "--set", "seed=-1"), ("spec", "--set", "seed=-1", "--debug")):
        done = deltarule(*arguments, check=False)
        assert done.returncode == 2 and "Traceback" in done.stderr and "seed must" in done.stderr.splitlines()[-1]


def test_the_resolved_spec_is_a_spec_again(deltarule, spec, tmp_path):
    first = deltarule("spec", "--set", "model.dropout=0.25").stdout
    (tmp_path / "resolved.yaml").write_text(first)
    assert "dropout: 0.25" in first
    assert deltarule("spec", "--params", "resolved.yaml").stdout == first


def test_the_schema_is_json(deltarule):
    schema = json.loads(deltarule("schema").stdout)
    assert {"seed", "data", "model", "train", "tracking"} <= set(schema["properties"])


def test_a_reader_that_hangs_up_is_no_error_of_ours(tmp_path):
    done = subprocess.run(f"'{BIN}/deltarule' schema | head -1", shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "{\n" and "Traceback" not in done.stderr


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_quietly_with_its_code(tmp_path, spec, sign, code):
    command = [BIN / "deltarule", "run", "--set", "train.epochs=100000", "--set", "tracking.enabled=false"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("runs/*/outputs/data/about.json")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)  # into the epochs
    process.send_signal(sign)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors


def test_a_launch_says_what_it_did_in_one_line_of_json(deltarule, spec, tmp_path):
    done = deltarule("run", "--json", "--name", "my first")
    told = json.loads(done.stdout)
    folder = tmp_path / told["folder"]
    assert folder.parent == tmp_path / "runs" and folder.name.endswith("-my-first")
    assert 0 <= told["metrics"]["validate"]["accuracy"] <= 1
    assert set(told["seconds"]) == {"split", "train", "validate", "record"}
    [kept] = json.loads(deltarule("runs", "--json").stdout)["runs"]  # which waits for the sender
    assert told["run_id"] in (kept["id"], None)
    assert not (folder / "outputs/test").exists()


def test_a_launch_runs_again_from_its_own_spec_to_the_same_bytes(deltarule, spec, tmp_path):
    options = ("--set", "tracking.enabled=false", "--json")
    first = json.loads(deltarule("run", "--set", "model.dropout=0.5", *options).stdout)["folder"]
    again = json.loads(deltarule("run", "--params", f"{first}/params.yaml", *options).stdout)["folder"]
    assert first != again
    for name in ("params.yaml", "outputs/train/model.safetensors", "outputs/train/history.csv", "outputs/validate/metrics.json"):
        assert (tmp_path / first / name).read_bytes() == (tmp_path / again / name).read_bytes(), name


def test_test_rows_are_opened_on_request(deltarule, spec, tmp_path):
    told = json.loads(deltarule("run", "--test", "--json", "--set", "tracking.enabled=false").stdout)
    assert set(told["metrics"]) == {"validate", "test"} and told["run_id"] is None
    assert (tmp_path / told["folder"] / "outputs/test/metrics.json").exists()


def test_launches_that_start_at_once_get_a_folder_each(tmp_path, spec):
    command = [BIN / "deltarule", "run", "--json", "--name", "twin", "--set", "tracking.enabled=false"]
    started = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    folders = {json.loads(process.communicate(timeout=120)[0])["folder"] for process in started}
    assert len(folders) == 3


def test_a_store_that_fails_is_a_warning_whose_advice_sends_the_run_later(deltarule, spec, tmp_path):
    (tmp_path / "broken.db").write_text("no database")
    done = deltarule("run", "--json", "--set", "tracking.uri=sqlite:///broken.db")
    told = json.loads(done.stdout)
    assert told["run_id"] is None and "warning: " in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / told["folder"] / "outputs/validate/metrics.json").exists()
    (tmp_path / "broken.db").unlink()
    advice = re.search(r"`deltarule (sync [^`]*)`", done.stderr)[1]
    assert f"{told['folder']}: on record in MLflow as run" in deltarule(*shlex.split(advice)).stdout


def test_without_a_terminal_progress_is_plain_lines(deltarule, spec):
    done = deltarule("run", "--set", "train.epochs=40", "--set", "tracking.enabled=false")
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 10 and lines[-1].startswith("epoch 40/40  train_objective ")
    assert "\x1b" not in done.stdout + done.stderr


def test_a_stage_without_the_one_before_it_says_which_to_run(deltarule, spec):
    done = deltarule("train", check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr and "deltarule split" in done.stderr


def test_the_stages_work_one_after_the_other(deltarule, spec, tmp_path):
    for stage in ("split", "train", "validate", "test"):
        told = json.loads(deltarule(stage, "--json").stdout)
        assert told["stage"] == stage and set(told["seconds"]) == {stage}
    first = json.loads(deltarule("sync", "--json").stdout)["run_id"]
    assert first and json.loads(deltarule("sync", "--json").stdout)["run_id"] == first


def test_a_missed_threshold_is_a_failure_that_says_which(deltarule, spec):
    done = deltarule("run", "--set", "thresholds.accuracy={min: 1.0}", "--set", "tracking.enabled=false", check=False)
    assert done.returncode == 1
    assert "accuracy must be at least 1, got 0." in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_version_of_the_package_is_the_one_of_pyproject():
    import tomllib
    from importlib.metadata import version

    assert version("deltarule") == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_a_launch_that_the_store_did_not_take_is_sent_by_the_next_sync(deltarule, spec, tmp_path):
    said = deltarule("run", "--name", "later", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "wait for the store" in said.stderr and said.stderr.startswith("warning: ")
    folder = next((tmp_path / "runs").glob("*-later"))
    [waits] = json.loads(deltarule("sync", "--status", "--json").stdout)["runs"]
    assert (waits["run"], waits["state"], waits["sent"]) == (f"runs/{folder.name}", "finished", 0) and waits["waiting"] > 10
    kept = deltarule("sync", check=False)  # not to another store without a word
    assert kept.returncode == 1 and "waits for the store http://127.0.0.1:9, and today's is sqlite:" in kept.stderr
    assert "deltarule sync --here" in kept.stderr
    assert f"runs/{folder.name}: on record in MLflow as run" in deltarule("sync", "--here").stdout
    assert deltarule("sync", "--status").stdout == "nothing waits for the store\n"
    assert deltarule("sync").stdout.startswith("there is nothing to put on record")


def test_an_earlier_run_whose_store_is_gone_holds_up_no_pipeline_and_can_be_given_up(deltarule, spec):
    deltarule("run", "--name", "gone", "--set", "tracking.uri=http://127.0.0.1:9")
    for stage in ("split", "train"):
        deltarule(stage)
    said = deltarule("sync")
    assert "on record in MLflow as run" in said.stdout
    assert said.stderr.startswith("warning: the run 'gone'") and "`deltarule sync --drop RUN`" in said.stderr
    wrong = deltarule("sync", "--drop", "nothing", check=False)
    assert wrong.returncode == 2 and "--drop must name one run that waits, got 'nothing'" in wrong.stderr
    assert "are given up, and will not be on record" in deltarule("sync", "--drop", "gone").stdout
    assert deltarule("sync", "--status").stdout == "nothing waits for the store\n"
    assert deltarule("sync").stderr == ""


def test_a_stage_that_holds_the_pipeline_puts_the_run_on_record(deltarule, spec, tmp_path):
    """`dvc repro` ends there, and does not come to the stage that would."""
    shutil.rmtree(tmp_path / ".mlflow")
    for stage in ("split", "train"):
        deltarule(stage)
    held = deltarule("validate", "--set", "thresholds.accuracy={min: 1.0}", check=False)
    assert held.returncode == 1 and "validation holds the pipeline" in held.stderr
    assert (tmp_path / ".mlflow/mlflow.db").is_file()
    assert json.loads(deltarule("sync", "--json").stdout)["launches"] == {}
