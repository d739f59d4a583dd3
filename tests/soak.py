"""Kills runs with SIGKILL at random moments, resumes them, and compares what comes of it with an unbroken run's: `make soak`.

    python tests/soak.py --backends reference keras --kills 20 --seed 7

Of each backend one process imports the framework and forks for each command, so that most of the time goes to what is tested.
Outs must be the same bytes, MLflow must hold each run once with the same points, and at most half of the epochs is trained twice.

`--runs N` are runs from Python in one process, `--trials N` a study that is killed a tenth as often as `--kills`: memory,
descriptors, threads, temporary files and child processes must stay as they were in the first half, and each run and trial be on
record once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BACKENDS = ("reference", "lightning", "keras", "keras-jax")
FOLDS = "data: {split: {folds: 3}}"
SEARCH = "search: {trials: 8, generation: 4, space: {train.optimizer.learning_rate: {low: 0.001, high: 0.1, log: true}}}"
KINDS = {"run": "", "folds": FOLDS, "study": SEARCH}
KILLS_A_RUN = 2
ALARM = 600  # s, for a command


class Project:
    """A folder with one spec a kind, and commands in it, each a process of its own."""

    def __init__(self, folder: Path, backend: str, epochs: int, every: float | None, record: bool) -> None:
        self.folder, self.backend, self.every, self.record = folder, backend, every, record
        self.trained, self.log = folder / "trained", folder / "log"
        (folder / ".dvc").mkdir(parents=True)
        for kind, block in KINDS.items():
            length = max(2, epochs // {"run": 1, "folds": 3, "study": 8}[kind])
            (folder / f"{kind}.yaml").write_text(
                f"{block}\ntracking: {{enabled: {str(record).lower()}}}\n"
                "model: {hidden: [16], activation: tanh, dropout: 0.1}\n"
                f"train: {{backend: {backend}, epochs: {length}, early_stopping: {{patience: null}}}}\n"
            )
        os.chdir(folder)

    def start(self, *words: str) -> int:
        """Fork, and carry out the command in the child; its process id."""
        if pid := os.fork():
            return pid
        code = 70
        try:
            signal.alarm(ALARM)
            out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1), os.dup2(out, 2)
            print("$", *words, flush=True)
            from backends import supervisor
            from pipelines import cli, record

            supervisor.CHECKPOINT_SECONDS = self.every or supervisor.CHECKPOINT_SECONDS
            told, marks = record.Recording.epoch, os.open(self.trained, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            record.Recording.epoch = lambda one, row: (os.write(marks, b"."), told(one, row))[1]
            cli.main(list(words))
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)

    def ended(self, pid: int, after: float = ALARM) -> int:
        """Its exit code; SIGKILL comes `after` so many seconds, which gives -9."""
        ends = time.monotonic() + after
        while time.monotonic() < ends:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def once(self, kind: str, name: str, moments: list[float]) -> tuple[int, float]:
        """One run under this name to its end, killed and resumed at these moments: kills, and epochs that were trained."""
        self.trained.unlink(missing_ok=True)
        begin = ("search" if kind == "study" else "run", "--params", f"{kind}.yaml", "--name", name)
        code, kills = self.ended(self.start(*begin), moments[0] if moments else ALARM), 0
        while code == -signal.SIGKILL:
            kills += 1
            known = bool([*self.folder.glob(f"runs/*-{name}/.deltarule/launch.json")])
            over = bool([*self.folder.glob(f"runs/*-{name}/outputs/validate/about.json")]) and not known
            if over:
                return kills, 0.0
            go_on = ("run", "--resume", name) if known and kind != "study" else begin
            code = self.ended(self.start(*go_on), moments[kills] if kills < len(moments) else ALARM)
        assert code == 0, f"{name} ended with {code}: {self.log.read_text()[-2000:]}"
        return kills, len(self.trained.read_bytes()) if self.trained.exists() else 0.0

    def outs(self, kind: str, name: str) -> dict[str, object]:
        """What a run left: path -> bytes; of a study its trials and their curves."""
        if kind == "study":
            command = [sys.executable, "-m", "pipelines.cli", "study", "export", name, "--as", "csv"]
            trials = subprocess.run(command, capture_output=True, check=True).stdout
            return {"trials": trials, **files(self.folder / "studies" / name / "curves")}
        return files([*self.folder.glob(f"runs/*-{name}/outputs")][-1])

    def points(self, name: str) -> list[object]:
        """The statuses and points that MLflow holds of the runs of this name, and of a study's trials in order."""
        if not self.record:
            return []
        with sqlite3.connect(f"file:{self.folder}/.mlflow/mlflow.db?mode=ro", uri=True) as store:
            own = f"SELECT run_uuid, name, status FROM runs WHERE name = '{name}'"
            below = f"""SELECT r.run_uuid, r.name, r.status FROM runs r JOIN tags USING (run_uuid) JOIN ({own}) o
                ON value = o.run_uuid WHERE key = 'mlflow.parentRunId' ORDER BY r.name"""
            found = store.execute(own).fetchall() + store.execute(below).fetchall()
            asked = "SELECT key, step, value, COUNT(*) FROM metrics WHERE run_uuid = ? GROUP BY key, step ORDER BY key, step"
            return [(status, [row for row in store.execute(asked, (run,)) if "second" not in row[0]]) for run, _, status in found]

    def settle(self) -> None:
        """Put on record what waits, and wait for who sends."""
        self.ended(self.start("sync", "--params", "run.yaml"))
        while self.record and [*self.folder.glob(".deltarule/log/*/events.jsonl")]:
            time.sleep(2)  # a sender of low priority may be at work
            self.ended(self.start("sync", "--params", "run.yaml"))


def files(folder: Path) -> dict[str, object]:
    """Path -> bytes of all below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def soak(project: Project, kinds: list[str], kills: int, draw: random.Random) -> int:
    """How many kills were survived, spread over the kinds of runs."""
    survived, seconds, whole = 0, {}, {}
    for kind in kinds:
        began = time.monotonic()
        _, epochs = project.once(kind, f"whole-{kind}", [])
        seconds[kind] = time.monotonic() - began
        project.settle()
        whole[kind] = epochs, project.outs(kind, f"whole-{kind}"), project.points(f"whole-{kind}")
    number = 0
    while survived < kills:
        kind, name = kinds[number % len(kinds)], f"cut-{number}"
        moments = sorted(draw.uniform(0, seconds[kind]) for _ in range(KILLS_A_RUN))
        began = time.monotonic()
        killed, epochs = project.once(kind, name, moments)
        spent = time.monotonic() - began
        project.settle()
        expected, outs, points = whole[kind]
        now = project.outs(kind, name)
        differ = [path for path in {*outs, *now} if outs.get(path) != now.get(path)]
        assert not differ, f"{name}: {differ} differ from the unbroken {kind}'s in {project.folder}"
        assert project.points(name) == points, f"{name}: MLflow's points differ from the unbroken {kind}'s in {project.folder}"
        assert kind == "study" or epochs <= 1.5 * expected, f"{name}: {epochs} epochs were trained, of {expected}"
        survived, number = survived + killed, number + 1
        share = f"{epochs / expected:.2f} times its epochs, " if expected else ""
        print(f"{project.backend}: {kind} killed {killed} times, {share}{spent / seconds[kind]:.2f} times its time", flush=True)
    return survived


class Usage:
    """What a process holds, as the kernel has it: looked at again and again."""

    def __init__(self, pid: int) -> None:
        self.place, self.seen = Path(f"/proc/{pid}"), list[dict[str, int]]()

    def look(self) -> None:
        """Once more; nothing where the process is over."""
        try:
            threads = [*self.place.glob("task/*")]
            resident = int(self.place.joinpath("statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
            children = sum(len((one / "children").read_text().split()) for one in threads)
            files = len(os.listdir(self.place / "fd"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return
        temporary = len(os.listdir(tempfile.gettempdir()))
        found = {"KiB": resident, "files": files, "threads": len(threads), "children": children, "temporary": temporary}
        if resident:  # else it is over, and not yet waited for
            self.seen.append(found)

    def grown(self) -> dict[str, tuple[int, int]]:
        """The least before half of the looks, and before the last tenth: after what opens a command, and before what ends it."""
        tenth = max(1, len(self.seen) // 10)
        early, late = (self.seen[start * tenth : (start + 2) * tenth] or self.seen for start in (3, 7))
        return {name: (min(one[name] for one in early), min(one[name] for one in late)) for name in self.seen[0]}

    def check(self, what: str, each: int, count: int) -> None:
        """Nothing but memory may grow, and that by no more than `each` bytes for each of `count`."""
        grown = self.grown()
        print(f"{what}: {json.dumps(grown)}", flush=True)
        for name, (early, late) in grown.items():
            most = early + (20_000 + each * count // 1024 if name == "KiB" else 1)
            assert late <= most, f"{what}: {name} grew from {early} to {late}, may be {most}"


def many_runs(folder: Path, count: int) -> None:
    """From Python, in this process."""
    import deltarule
    from pipelines.record import recording
    from pipelines.spec import Experiment

    (folder / ".dvc").mkdir(parents=True)
    os.chdir(folder)
    train = {"backend": "reference", "epochs": 3, "early_stopping": {"patience": None}}
    usage, least = Usage(os.getpid()), {"data": {"source": "iris"}, "model": {"hidden": [4]}, "train": train}
    for seed in range(count):
        deltarule.run(Experiment.model_validate({**least, "seed": seed}), f"runs/{seed}", name=f"run-{seed}", track=True)
        ends = time.monotonic() + 60  # a sender that goes on after its run is no leak
        while any(sender.poll() is None for sender in recording._left) and time.monotonic() < ends:
            time.sleep(0.05)
        usage.look()
    project = Project.__new__(Project)
    project.folder, project.every, project.record = folder, None, True
    project.trained, project.log = folder / "trained", folder / "log"
    (folder / "run.yaml").write_text("{}\n")
    project.settle()
    with sqlite3.connect(f"file:{folder}/.mlflow/mlflow.db?mode=ro", uri=True) as store:
        names = [name for (name,) in store.execute("SELECT name FROM runs WHERE status = 'FINISHED'")]
    assert sorted(names) == sorted(f"run-{seed}" for seed in range(count)), f"{len(names)} runs on record, of {count}"
    usage.check(f"{count} runs", 30_000, count)


def long_study(project: Project, trials: int, kills: int, draw: random.Random) -> None:
    """One study, in a process that is killed at random moments and goes on."""
    block = f"search: {{trials: {trials}, generation: 16, sampler: random, space: {{model.dropout: {{low: 0.0, high: 0.5}}}}}}"
    train = "train: {backend: reference, epochs: 3, early_stopping: {patience: null}}"
    spec = f"{block}\ndata: {{source: iris}}\nmodel: {{hidden: [4]}}\n{train}\n"
    (project.folder / "long.yaml").write_text(spec)
    words, last = ("search", "--params", "long.yaml", "--name", "long"), Usage(0)
    for left in range(kills, -1, -1):
        pid = project.start(*words)
        usage, ends = Usage(pid), time.monotonic() + draw.uniform(2, 40) if left else float("inf")
        while not (done := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < ends:
            usage.look()
            time.sleep(0.2)
        if not done[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        else:
            code = os.waitstatus_to_exitcode(done[1])
            assert code == 0, f"the study ended with {code}: {project.log.read_text()[-2000:]}"
        last = max(usage, last, key=lambda one: len(one.seen))
        if done[0]:
            break
    project.settle()
    with sqlite3.connect(f"file:{project.folder}/.mlflow/mlflow.db?mode=ro", uri=True) as store:
        told = store.execute("SELECT value, COUNT(*) FROM tags WHERE key = 'deltarule.trial' GROUP BY value").fetchall()
    assert sorted((int(number), count) for number, count in told) == [(n, 1) for n in range(trials)], "trials on record"
    last.check(f"{trials} trials", 40_000, trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--kinds", nargs="+", default=[*KINDS], choices=KINDS)
    parser.add_argument("--kills", type=int, default=20, help="of each backend")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--every", type=float, help="seconds between checkpoints; what people have, if left out")
    parser.add_argument("--no-record", action="store_true", help="without MLflow")
    parser.add_argument("--runs", type=int, default=0, help="from Python, in one process")
    parser.add_argument("--trials", type=int, default=0, help="of one study, which is killed --kills times")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    if given.runs or given.trials:
        flat(given)
        return
    if len(given.backends) > 1:
        command = [sys.executable, __file__, *sys.argv[1:], "--seed", str(given.seed), "--backends"]
        sys.exit(max(subprocess.run([*command, backend]).returncode for backend in given.backends))
    import backends
    import pipelines.api.launch  # before the first fork, not in each
    import pipelines.cli.app
    import pipelines.search  # noqa: F401

    [backend] = given.backends
    backends.get(backend)
    with tempfile.TemporaryDirectory() as scratch:
        project = Project(Path(scratch) / "p", backend, given.epochs, given.every, not given.no_record)
        survived = soak(project, given.kinds, given.kills, random.Random(given.seed))
        os.chdir("/")
    print(json.dumps({"backend": backend, "kills survived": survived, "seed": given.seed}))


def flat(given: argparse.Namespace) -> None:
    """What grows with runs and trials."""
    import pipelines.cli.app
    import pipelines.search  # noqa: F401

    with tempfile.TemporaryDirectory() as scratch:
        tempfile.tempdir = os.environ["TMPDIR"] = str(Path(scratch) / "tmp")
        Path(tempfile.tempdir).mkdir()
        if given.trials:
            long_study(
                Project(Path(scratch) / "s", "reference", 3, None, True), given.trials, given.kills, random.Random(given.seed)
            )
        if given.runs:
            many_runs(Path(scratch) / "r", given.runs)
        os.chdir("/")


if __name__ == "__main__":
    main()
