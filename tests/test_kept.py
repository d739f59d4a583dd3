"""What users have from commit d895d88 (tests/kept/, made by make.py) goes on working, and today's code gives the same numbers.

On the machine type of kept/machine.json, and with the versions of then, the same to the last bit; elsewhere losses within
TOLERANCE.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import call, environment
from ruamel.yaml import YAML

KEPT = Path(__file__).parent / "kept"
sys.path.insert(0, str(KEPT))
import cases  # noqa: E402

TOLERANCE = 1e-3  # of losses, on another type of machine: on one of AMD, 30 epochs in float32 came to part by 1e-4
MAY_DIFFER = {"fingerprint", "versions"}  # of run.json: hashes of our sources, and who computed


class Answer(NamedTuple):
    """What a command ended with, and said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Shell = Callable[..., Answer]


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    """`shell(folder, *words)`: a command in a folder, all in one process beside this one, as people's shells have it."""
    process = subprocess.Popen(
        [sys.executable, str(KEPT / "shell.py")], env=environment(OMP_NUM_THREADS="1"), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None

    def carry_out(folder: Path, *words: str) -> Answer:
        process.stdin.write(json.dumps([str(folder), *words]) + "\n")
        process.stdin.flush()
        return Answer(*json.loads(process.stdout.readline()))

    yield carry_out
    process.stdin.close()
    process.wait(180)  # what goes on record beside a command may take a while to end
    process.stdout.close()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the archive holds, as it was packed."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(KEPT / "project.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "kept"


def settled(old: Path, folder: Path) -> Path:
    """A copy to work in, whose absolute paths lead into it: as if the project had been made there."""
    shutil.copytree(old, folder, symlinks=True)
    for path in folder.rglob("MLmodel"):
        path.write_text(path.read_text().replace(cases.MADE_AT, str(folder)))
    database = sqlite3.connect(folder / "project/.mlflow/mlflow.db")
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")):
        database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (cases.MADE_AT, str(folder)))
    database.commit()
    database.close()
    return folder


@pytest.fixture(scope="module")
def now(old: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return settled(old, tmp_path_factory.mktemp("now") / "kept")


@pytest.fixture(scope="module")
def project(now: Path) -> Path:
    return now / "project"


@pytest.fixture(scope="module")
def whole(now: Path, shell: Shell) -> Path:
    """The folder of the run that was ended then, where it was trained without an end, by today's code."""
    assert shell(now / "whole", "train").code == 0
    return now / "whole"


# -- the numbers -------------------------------------------------------------------------------------------------------------


def same_machine(then: Path, now: Path) -> bool:
    """Whether the bits must be equal: of the outs of two runs, the environment and the versions."""
    a, b = (json.loads((folder / "train/run.json").read_text()) for folder in (then, now))
    return all(a[key] == b[key] for key in ("environment", "versions"))


def contains(new: Any, kept: Any, place: str = "") -> None:
    """`new` says all that `kept` says, and may say more."""
    if isinstance(kept, dict):
        assert isinstance(new, dict), place
        for key, value in kept.items():
            assert key in new, f"{place}.{key} is gone"
            contains(new[key], value, f"{place}.{key}")
    else:
        assert new == kept, f"{place}: was {kept!r}, is {new!r}"


def check_outs(then: Path, now: Path) -> None:
    """The outs of all stages in `now` are those in `then`."""
    files = sorted(path.relative_to(then) for path in then.rglob("*") if path.is_file() and path.parts[-2] != "code")
    assert len(files) > 12
    same = same_machine(then, now)
    for file in files:
        if file.name == ".gitignore" or file.suffix == ".html":
            continue
        a, b = then / file, now / file
        assert b.is_file(), f"{file} is gone"
        if not same:
            check_close(a, b)
        elif file.name in ("run.json", "about.json"):
            kept = {key: value for key, value in json.loads(a.read_text()).items() if key not in MAY_DIFFER}
            contains(json.loads(b.read_text()), kept, file.name)
        else:
            assert a.read_bytes() == b.read_bytes(), f"{file} has other bytes"


def check_close(a: Path, b: Path) -> None:
    """Of another machine's outs: losses, and the rows."""
    if a.suffix == ".npy":
        np.testing.assert_allclose(np.load(a), np.load(b), rtol=TOLERANCE, atol=TOLERANCE)
    elif a.name == "history.csv":
        for one, other in zip(rows_of(a), rows_of(b), strict=True):
            losses = {key: float(value) for key, value in one.items() if "loss" in key}
            assert losses == pytest.approx({key: float(other[key]) for key in losses}, rel=TOLERANCE, abs=TOLERANCE)
    elif a.name == "metrics.json":
        one, other = (json.loads(path.read_text()) for path in (a, b))
        losses = {key: value for key, value in one.items() if "loss" in key and isinstance(value, float)}
        assert losses == pytest.approx({key: other[key] for key in losses}, rel=TOLERANCE, abs=TOLERANCE)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def launch_of(project: Path, name: str) -> Path:
    """The folder of a launch."""
    [found] = (project / "runs").glob(f"*-*-{name}")
    return found


@pytest.mark.parametrize("name", cases.RUNS)
def test_an_old_spec_gives_the_old_outs(name, old, project, shell):
    options = [*cases.RUNS[name], *cases.sets(tracking__enabled="false"), *(["--test"] if name in cases.OPENED else [])]
    done = shell(project, "run", *cases.PARAMS, "--name", f"now-{name}", "--json", *options)
    assert done.code == 0, done.err
    check_outs(launch_of(old / "project", name) / "outputs", project / done.json["folder"] / "outputs")


def test_the_old_pipeline_runs_and_gives_the_old_outs(old, project):
    call("dvc", "repro", "--force", "--no-run-cache", cwd=project)
    check_outs(old / "project/outputs", project / "outputs")
    before, after = ((folder / ".deltarule/test-openings.jsonl").read_text() for folder in (old / "project", project))
    assert len(before.splitlines()) == 2 and after.startswith(before)


def test_the_old_params_mean_what_they_meant(project, shell):
    done = shell(project, "spec", *cases.PARAMS[:2])
    assert done.code == 0, done.err
    read = YAML(typ="safe", pure=True).load
    contains(read(done.out), read((KEPT / "default.resolved.yaml").read_text()))


# -- studies ---------------------------------------------------------------------------------------------------------------


def trials_of(shell: Shell, project: Path, name: str) -> list[dict[str, Any]]:
    done = shell(project, "study", "export", name, "--as", "json")
    assert done.code == 0, done.err
    return json.loads(done.out)["trials"]


def check_trials(found: list[dict[str, Any]], same: bool = True) -> None:
    """They are those of then: as many, drawn and ended alike, of the same values."""
    kept = json.loads((KEPT / "study.json").read_text())["trials"]
    if not same:  # a loss of 1e28 grows from a last bit
        drawn = [path for path in kept[0] if "." in path]
        found, kept = ([{path: one[path] for path in ("trial", *drawn)} for one in trials] for trials in (found, kept))
        kept = [{path: close(value) for path, value in one.items()} for one in kept]
    contains(dict(enumerate(found)), dict(enumerate(kept)))
    assert len(found) == len(kept)


def close(value: Any) -> Any:
    """Equal to it but for last bits: a drawn number comes of logarithms, which another processor rounds otherwise."""
    return pytest.approx(value, rel=1e-12) if isinstance(value, float) else value


def search(shell: Shell, project: Path, name: str) -> Answer:
    return shell(project, "search", "--params", "specs/study.yaml", "--name", name, "--set", "tracking.enabled=false")


def test_an_old_study_is_read(project, shell):
    trials = trials_of(shell, project, "kept")
    check_trials(trials)
    states = shell(project, "study", "show", "kept", "--json").json["states"]
    assert {state.lower(): count for state, count in states.items()} == Counter(one["state"] for one in trials)


def test_a_study_draws_the_trials_of_then_and_finds_the_same(old, whole, project, shell):
    assert search(shell, project, "anew").code == 0
    check_trials(trials_of(shell, project, "anew"), same_machine(old / "whole/outputs", whole / "outputs"))


def test_a_study_that_was_killed_then_goes_on_to_the_trials_of_an_unbroken_one(old, whole, project, shell):
    assert search(shell, project, "half").code == 0
    check_trials(trials_of(shell, project, "half"), same_machine(old / "whole/outputs", whole / "outputs"))


# -- a run that was ended in the midst of it -------------------------------------------------------------------------------


def test_an_old_checkpoint_cannot_be_checked_which_is_said_and_costs_no_bit(now, old, whole, shell):
    halted = now / "halted"
    check_outs(old / "whole/outputs", whole / "outputs")
    # It stands under the run's fingerprint, which a change of the source changes; all else is as it was.
    [checkpoint] = (halted / ".deltarule").glob("checkpoint-*")
    fingerprint = json.loads((whole / "outputs/train/run.json").read_text())["fingerprint"]
    checkpoint.rename(checkpoint.with_stem(f"checkpoint-{fingerprint}"))
    shutil.copytree(whole / "outputs/data", halted / "outputs/data")
    done = shell(halted, "train")
    assert done.code == 0 and f"{fingerprint}.safetensors is not used (has no hash" in done.err, done.err
    check_outs(old / "whole/outputs", halted / "outputs")


# -- the model -------------------------------------------------------------------------------------------------------------

MODELS = """
import sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/.mlflow/mlflow.db")
rows = pd.read_csv("data/rides.csv", sep=";", dtype=str)
for place in ("exported", f"runs:/{sys.argv[2]}/model"):
    print(*mlflow.pyfunc.load_model(place).predict(rows)["predicted_fare"][:5])
import deltarule
print(*deltarule.load_model("exported").answers(rows)["predicted_fare"][:5])
"""


@pytest.mark.parametrize("model", ["exported", "."])
def test_an_old_model_gives_the_old_answers(model, old, whole, project, shell):
    done = shell(old / "project", "predict", model, "data/rides.csv")
    assert done.code == 0, done.err
    kept = (old / "project/answers.csv").read_text()
    if same_machine(old / "whole/outputs", whole / "outputs"):
        assert done.out == kept
    else:
        check_answers(*([float(one["predicted_fare"]) for one in csv.DictReader(io.StringIO(text))] for text in (kept, done.out)))


def check_answers(kept: list[float], found: list[float]) -> None:
    np.testing.assert_allclose(found, kept, rtol=TOLERANCE)


def test_an_old_model_loads_in_mlflow_from_its_folder_and_from_the_old_store(old, project, shell):
    run, *_ = pipeline_runs(shell, project)
    done = call(sys.executable, "-W", "ignore", "-c", MODELS, project, run, cwd=project)
    kept = [float(one["predicted_fare"]) for one in rows_of(old / "project/answers.csv")[:5]]
    for line in done.stdout.splitlines():
        check_answers(kept, [float(word) for word in line.split()])
    assert len(done.stdout.splitlines()) == 3


def pipeline_runs(shell: Shell, project: Path) -> list[str]:
    """Ids of the pipeline's runs that are on record, the oldest first."""
    found = shell(project, "runs", "--json").json["runs"]
    return [one["id"] for one in reversed(found) if one["name"].startswith("rides")]


# -- the commands ----------------------------------------------------------------------------------------------------------


class Session(NamedTuple):
    """A project in which the commands of cases.SESSION and cases.ENDINGS were carried out, and what they answered."""

    project: Path
    told: dict[str, Answer]
    ended: dict[str, Answer]


@pytest.fixture(scope="module")
def session(old: Path, shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Session:
    project = settled(old, tmp_path_factory.mktemp("session") / "kept") / "project"
    [run] = pipeline_runs(shell, project)
    told = {
        " ".join(["deltarule", *words]): shell(project, *(run if word == "RUN" else word for word in words), "--json")
        for words in cases.SESSION
    }
    ended = {" ".join(["deltarule", *words]): shell(project, *words) for words in cases.ENDINGS}
    return Session(project, told, ended)


def golden_answers() -> dict[str, tuple[int, set[str]]]:
    """Command -> its exit code and the keys of its --json."""
    found: dict[str, tuple[int, set[str]]] = {}
    command = ""
    for line in (KEPT / "answers.txt").read_text().splitlines():
        if line.startswith("  "):
            found[command][1].add(line.strip())
        else:
            command, _, code = line.rpartition(": ")
            found[command] = int(code), set()
    return found


@pytest.mark.parametrize("command", golden_answers())
def test_a_command_ends_as_it_did_and_its_json_has_the_keys_that_it_had(command, session, old, whole):
    code, keys = golden_answers()[command]
    if not same_machine(old / "whole/outputs", whole / "outputs"):
        keys = [key for key in keys if key != "same[] text"]  # a run of another machine is reproduced, but for its last bits
    done = session.told[command]
    assert done.code == code, done.err
    found = cases.keys(done.json) if done.out else set()
    assert not {key for key in keys if not cases.is_in(key, found)}


def test_an_old_run_is_reproduced(session):
    assert session.told["deltarule reproduce RUN"].json["verdict"] in ("bit-equal", "within tolerance")


@pytest.mark.parametrize("line", (KEPT / "endings.txt").read_text().splitlines())
def test_a_command_has_the_exit_code_that_it_had(line, session):
    code, _, command = line.partition(" ")
    done = session.ended[command.strip()]
    assert done.code == int(code), done.err


def test_every_option_that_there_was_is_there():
    assert set((KEPT / "options.txt").read_text().splitlines()) <= set(cases.options_of_all_commands())


def test_every_public_name_that_there_was_is_there():
    import deltarule

    assert set((KEPT / "names.txt").read_text().split()) <= set(deltarule.__all__)
    assert all(hasattr(deltarule, name) for name in deltarule.__all__)


def test_a_run_of_then_and_one_of_today_have_their_metrics_under_one_key(session, shell):
    """`again` is of today's code: its metrics have other names in MLflow."""
    done = shell(session.project, "compare", "default", "again", "--json")
    assert done.code == 0, done.err
    for name in ("validate_loss", "test_loss"):
        assert all(one["low"] < one["value"] < one["high"] for one in done.json["metrics"][name]), name
    assert all(len(curve) > 1 for curve in done.json["curves"]["val_loss"])
    asked = "name = {} and val/loss < 100 and validate_loss_low > 0 and rows_train > 10"
    for name in ("default", "again"):
        [run] = shell(session.project, "runs", "--where", asked.format(name), "--sort", "val_loss", "--json").json["runs"]
        assert {"rows_train", "delta_rms_1", "train_loss"} <= run["metrics"].keys()


def test_what_waited_for_the_store_is_sent_once(session, shell):
    project = session.project
    folder = launch_of(project, "waiting").relative_to(project).as_posix()
    [waiting] = [one for one in session.told["deltarule sync --status"].json["runs"] if one["waiting"]]
    assert waiting["run"] == folder
    sent = session.told["deltarule sync"].json["launches"]
    history = rows_of(project / folder / "outputs/train/history.csv")
    [found] = shell(project, "runs", "--where", "name = 'waiting'", "--json").json["runs"]
    assert found["id"] == sent[folder] and found["status"] == "FINISHED"
    assert found["metrics"]["val_loss"] == pytest.approx(float(history[-1]["val_loss"]), rel=1e-12)
    with sqlite3.connect(project / ".mlflow/mlflow.db") as database:
        names = {name for (name,) in database.execute("SELECT key FROM metrics WHERE run_uuid = ?", (found["id"],))}
    assert {"train/loss", "val/loss", "validate/loss"} <= names
    assert folder not in shell(project, "sync", "--json").json["launches"]
