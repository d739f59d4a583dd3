"""How tests/kept was made: `python tests/kept/make.py`, with the code of commit d895d88 installed in this environment.

In /tmp/kept it makes a project as a user would have one, packs it into project.tar.xz, and writes beside it what that code
answered. Nothing here is made anew when the code changes: these files say what users have. machine.json says on what type of
machine the numbers were computed; there they are the same to the bit.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import cases  # noqa: E402

BASE = Path(cases.MADE_AT)
PROJECT, HALTED = BASE / "project", BASE / "halted"
BIN = Path(sys.executable).parent
GIT = {f"GIT_{who}_{what}": "kept" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENVIRONMENT = {
    **os.environ, **GIT, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "COLUMNS": "120",
    "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "2", "HOSTNAME": "kept", "USER": "kept",
    "LOGNAME": "kept",
}  # fmt: skip
LEFT_OUT = (".dvc/cache", ".dvc/tmp", ".git/hooks", "outputs/report.html", "__pycache__", ".git/logs")


def call(*command: str, cwd: Path = PROJECT, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode in codes, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def answer(*command: str, cwd: Path = PROJECT) -> Any:
    return json.loads(call("deltarule", *command, "--json", cwd=cwd).stdout)


def main() -> None:
    shutil.rmtree(BASE, ignore_errors=True)
    cases.write_rides(BASE / "rides.csv")
    make_the_project()
    runs()
    study()
    half_a_study()
    unsent_journal()
    halted_run()
    machine = json.loads(next(PROJECT.glob("runs/*-default/outputs/train/run.json")).read_text())["environment"]
    (HERE / "machine.json").write_text(json.dumps(machine, indent=1) + "\n")
    pack()
    golden()


def make_the_project() -> None:
    """By `deltarule new`, with the spec changed as a user would; its pipeline carried out and committed."""
    call("deltarule", "new", "project", "--data", "rides.csv", "--target", "fare", "--set", "data.format.decimal=comma", cwd=BASE)
    spec = (PROJECT / "params.yaml").read_text()
    for was, now in (("backend: lightning", "backend: reference"), ("epochs: 30", "epochs: 8"), ("[128, 64]", "[12]")):
        assert was in spec, was
        spec = spec.replace(was, now, 1)
    (PROJECT / "params.yaml").write_text(spec)
    (PROJECT / "specs").mkdir()
    shutil.copy(HERE / "default.yaml", PROJECT / "specs/default.yaml")
    (PROJECT / "specs/study.yaml").write_text(call("deltarule", "spec", *cases.PARAMS, *cases.STUDY).stdout)
    commit("The spec")
    call("dvc", "repro", "--quiet")
    commit("The first run")


def commit(message: str) -> None:
    call("git", "add", "--all")
    call("git", "commit", "--quiet", "--message", message)


def runs() -> None:
    """Launches, then what a user does with the pipeline's model."""
    for name, options in cases.RUNS.items():
        call("deltarule", "run", *cases.PARAMS, "--name", name, *(["--test"] if name in cases.OPENED else []), *options)
    call("deltarule", "export", ".", "exported")
    call("deltarule", "predict", "exported", "data/rides.csv", "--out", "answers.csv")
    commit("A model, and what it answers")


def study() -> None:
    call("deltarule", "search", "--params", "specs/study.yaml", "--name", "kept")


def half_a_study() -> None:
    """The same, ended by kill -9 in the midst of a generation."""
    log = PROJECT / "studies/half/optuna.log"
    command = [str(BIN / "deltarule"), "search", "--params", "specs/study.yaml", "--name", "half"]
    for _ in range(20):
        process = subprocess.Popen(command, cwd=PROJECT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and trials_of(log)[1] < 12:
            time.sleep(0.002)
        process.kill()
        process.wait()
        begun, over = trials_of(log)
        if 12 <= over < 32 and begun > over:
            print(f"half a study: {begun} trials begun, {over} over")
            return
        shutil.rmtree(log.parent)
    raise RuntimeError("no kill came in the midst of a generation")


def trials_of(log: Path) -> tuple[int, int]:
    """How many trials Optuna's journal has seen begin, and end."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")] if log.exists() else []
    return sum(one["op_code"] == 4 for one in lines), sum(one["op_code"] == 6 and one["state"] != 0 for one in lines)


def unsent_journal() -> None:
    """Of a run during which another process held the database."""
    other = sqlite3.connect(PROJECT / ".mlflow/mlflow.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    call("deltarule", "run", "--name", "waiting", "--set", "train.epochs=3")
    other.close()
    [waiting] = [one for one in answer("sync", "--status")["runs"] if one["waiting"]]
    assert "waiting" in waiting["run"], waiting


def halted_run() -> None:
    """`deltarule train` in a folder of its own, ended by SIGTERM; and the same unbroken, beside it."""
    HALTED.mkdir()
    spec = call("deltarule", "spec", *cases.PARAMS, *cases.HALTED, "--set", "tracking.enabled=false").stdout
    (HALTED / "params.yaml").write_text(spec)
    call("deltarule", "split", cwd=HALTED)
    whole = shutil.copytree(HALTED, BASE / "whole")
    call("deltarule", "train", cwd=whole)
    command, nothing = [str(BIN / "deltarule"), "train", "--json"], subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=HALTED, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=nothing, text=True)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("epoch 6/"))
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143, process.returncode
    [checkpoint] = (HALTED / ".deltarule").glob("checkpoint-*")
    print(f"a checkpoint of {checkpoint.stat().st_size} bytes")
    shutil.rmtree(HALTED / "outputs/data")  # the same as in whole/


def pack() -> None:
    """Everything in one archive; of artifacts those alone that a command reads, since figures and reports are large."""
    call("git", "gc", "--quiet", "--aggressive", "--prune=now")
    database = sqlite3.connect(PROJECT / ".mlflow/mlflow.db")
    database.execute("VACUUM")
    database.close()
    for log in PROJECT.glob(".deltarule/log/*/events.jsonl"):  # of as many bytes: how far it was sent is counted in them
        log.write_text(log.read_text().replace(f'"{socket.gethostname()}"', f'"{"k" * len(socket.gethostname())}"'))
    with tarfile.open(HERE / "project.tar.xz", "w:xz", preset=9) as archive:
        archive.add(BASE, "kept", filter=kept)
    print(f"{(HERE / 'project.tar.xz').stat().st_size} bytes")


def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "kept"
    out = any(part in entry.name for part in LEFT_OUT) or (
        "/.mlflow/artifacts/" in entry.name and ("/figures" in entry.name or entry.name.endswith((".html", ".svg", ".png")))
    )
    return None if out else entry


def golden() -> None:
    """What each command answers, in the project as it was packed."""
    import deltarule

    (HERE / "names.txt").write_text("\n".join(sorted(deltarule.__all__)) + "\n")
    (HERE / "options.txt").write_text("\n".join(cases.options_of_all_commands()) + "\n")
    (HERE / "default.resolved.yaml").write_text(call("deltarule", "spec", *cases.PARAMS[:2]).stdout)
    shown = json.loads(call("deltarule", "study", "export", "kept", "--as", "json").stdout)
    (HERE / "study.json").write_text(json.dumps(shown, indent=1) + "\n")
    [run] = [one["id"] for one in answer("runs")["runs"] if one["name"].startswith("rides")]
    lines = []
    for command in cases.SESSION:
        words = [run if word == "RUN" else word for word in command]
        print(*words, flush=True)
        done = call("deltarule", *words, "--json", codes=(0, 1, 2))
        found = sorted(cases.keys(json.loads(done.stdout))) if done.stdout else []
        lines += [f"deltarule {' '.join(command)}: {done.returncode}", *(f"  {key}" for key in found)]
    (HERE / "answers.txt").write_text("\n".join(lines) + "\n")
    endings = []
    for command in cases.ENDINGS:
        code = call("deltarule", *command, codes=(0, 1, 2)).returncode
        endings.append(f"{code} deltarule {' '.join(command)}")
    (HERE / "endings.txt").write_text("\n".join(endings) + "\n")


if __name__ == "__main__":
    main()
