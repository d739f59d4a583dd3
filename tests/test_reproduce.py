"""A run on record can be run again as it was, whatever became of the project since, and nothing of the user's is touched."""

from __future__ import annotations

import getpass
import json
import os
import random
import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import call, copy_of_the_project

from pipelines.api.launch import launch
from pipelines.check import reproduce as module
from pipelines.check.checkout import Checkout, RestoredFile, check_out, restore
from pipelines.check.outs import Verdict, compare, differences
from pipelines.check.recorded import RecordedRun, nested, runnable
from pipelines.check.reproduce import ReproduceError, reproduce
from pipelines.check.verdict import Finding
from pipelines.cli import main
from pipelines.data.parts import read_json, write_json
from pipelines.spec import Experiment, dump, flat
from pipelines.stages import RunPaths
from pipelines.tracking import TrackingError, locate, query
from pipelines.tracking.query import Fetched as Recorded

BLOCKS = {"model": {"hidden": [8]}, "train": {"backend": "reference", "epochs": 3}, "validation": {"baselines": False}}
COMMIT = "mlflow.source.git.commit"
MARK = "import os, pathlib; pathlib.Path(os.environ['MARK']).touch()\n"  # code that shows that it ran


def spec(source: str = "data/rows.csv", **blocks) -> Experiment:
    data = {"source": source, "target": "kind"} if source.endswith(".csv") else {"source": source}
    return Experiment.model_validate({**BLOCKS, "data": data, **blocks})


def rows(path: Path, seed: int) -> None:
    draw = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{draw.gauss(i % 3, 0.5):.3f},{draw.gauss(0, 1):.3f},{('rose', 'tulip', 'iris')[i % 3]}" for i in range(90)]
    path.write_text("\n".join(["length,width,kind", *lines]) + "\n")


def git(folder: Path, *arguments: str) -> str:
    return call("git", *arguments, cwd=folder).stdout


def client_of(project: Path):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=locate(Experiment().tracking, project).uri)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with data in git, in DVC and in neither, and a run on record of each; all of it changed and moved since."""
    project = tmp_path_factory.mktemp("made") / "flowers"
    (project / "data").mkdir(parents=True)
    before = Path.cwd()
    os.chdir(project)
    try:
        _commit_data(project)
        _launch_each(project)
        for name in ("rows", "kept", "own"):
            rows(project / f"data/{name}.csv", 7)
        # Amended: no branch holds the commit of the runs any more.
        git(project, "commit", "--quiet", "--all", "--amend", "--message", "other rows")
    finally:
        os.chdir(before)
    return project.rename(tmp_path_factory.mktemp("moved") / "flowers")


def _commit_data(project: Path) -> None:
    for name in ("rows", "kept", "own"):
        rows(project / f"data/{name}.csv", 1)
    (project / "lib").mkdir()
    (project / "lib/sitecustomize.py").write_text(
        "import os\nif 'MARK' in os.environ:\n    open(os.environ['MARK'], 'w').close()\n"
    )
    (project / "params.yaml").write_text("{}\n")
    (project / "dvc.yaml").write_text("stages: {}\n")
    (project / ".gitignore").write_text("/data/own.csv\n/runs/\n/.mlflow/\n/.deltarule/\n/studies/\n/record/\n")
    git(project, "init", "--quiet", "--initial-branch=main")
    for key, value in (("user.name", "test"), ("user.email", "test@localhost")):
        git(project, "config", key, value)
    git(project, "commit", "--quiet", "--allow-empty", "--message", "empty")
    dvc = (sys.executable, "-m", "dvc")
    call(*dvc, "init", "--quiet", cwd=project)
    call(*dvc, "add", "--quiet", "data/kept.csv", cwd=project)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "first")


def _launch_each(project: Path) -> None:
    launch(spec(), name="clean", test=True)
    launch(spec("data/kept.csv"), name="kept")
    launch(spec("data/own.csv"), name="own")
    rows(project / "data/rows.csv", 3)
    launch(spec(), name="dirty")
    [dirty] = [run for run in query.recorded(Experiment().tracking, project) if run.name == "dirty"]
    client = client_of(project)
    if not any(file.path == "source" for file in client.list_artifacts(dirty.id)):
        client.log_text(dirty.id, git(project, "diff", "--binary", "HEAD"), "source/uncommitted.diff")


@pytest.fixture
def project(made, monkeypatch) -> Path:
    monkeypatch.chdir(made)
    return made


def again(text: str, project: Path, **options):
    return reproduce(text, Experiment(), project, **options)


def test_a_run_of_an_earlier_commit_comes_out_the_same_to_the_bit_and_nothing_of_the_users_is_touched(project, tmp_path):
    def state() -> tuple[str, ...]:
        looks = (("status", "--porcelain"), ("branch", "--all"), ("worktree", "list"), ("rev-parse", "HEAD"))
        ledger = (project / ".deltarule/test-openings.jsonl").read_text()
        return *(git(project, *look) for look in looks), ledger, *map(str, sorted((project / "runs").iterdir()))

    before = state()
    found = again("clean", project, into=tmp_path / "again", test=True)
    assert found.verdict.word == "bit-equal" and "test/metrics.json" in found.verdict.same and not found.dirty
    assert found.folder == tmp_path / "again" and (found.folder / "outputs/train/model.safetensors").is_file()
    assert state() == before, "the test rows were opened by the same experiment as before"


def test_what_was_uncommitted_is_applied(project):
    found = again("dirty", project)
    assert found.dirty and found.folder is None and found.verdict.word == "bit-equal"


def test_data_that_changed_since_come_from_the_cache_of_dvc(project):
    assert again("kept", project).verdict.word == "bit-equal"


def test_data_that_are_gone_are_named_with_the_hash_that_is_wanted(project, tmp_path):
    cache, aside = project / ".dvc/cache/files/md5", tmp_path / "md5"
    shutil.move(cache, aside)
    try:
        with pytest.raises(
            ReproduceError, match=r"data/kept\.csv \(MD5 \w{32} by DVC\).* SHA-256 of the train part must be \w{64}"
        ):
            again("kept", project)
        (project / "data/kept.csv").rename(tmp_path / "kept.csv")
        with pytest.raises(ReproduceError, match=r"data/kept\.csv, which the run read, is gone.* MD5 \w{32}"):
            again("kept", project)
    finally:
        shutil.move(aside, cache)


def test_a_file_that_only_the_project_has_is_taken_if_it_is_still_the_one(project):
    with pytest.raises(ReproduceError, match=r"data/own\.csv must be as the run read it"):
        again("own", project)
    rows(project / "data/own.csv", 1)
    assert again("own", project).verdict.word == "bit-equal"


def test_the_command_says_so_in_json_and_by_its_exit_code(project, monkeypatch, capfd):
    assert leave("reproduce", "clean", "--json") == 0
    out, err = capfd.readouterr()
    said = json.loads(out)
    assert said["verdict"] == "bit-equal" and said["folder"] is None and said["environment"] == []
    assert "not by you" not in err
    monkeypatch.setattr(module, "user", lambda: "eve")
    assert leave("reproduce", "clean", "--json") == 0
    assert f"made by {getpass.getuser()}, not by you: spec, names of data" in capfd.readouterr().err
    worse = Finding("history, val_loss", "epoch 1", 0.5, 1e-5)
    found = Verdict("different", begins="epoch 1 (val_loss)", quantities=(worse,), environment=(("cpu", "a", "b"),))
    monkeypatch.setattr(module, "_run", lambda *_: found)
    assert leave("reproduce", "clean") == 1
    out = capfd.readouterr().out
    assert "different; it begins with epoch 1 (val_loss)" in out and "other than then: cpu: a, now b" in out


def leave(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return left.value.code


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("nothing",), "no run is on record under 'nothing'"),
        (("dirty", "--test"), "--test is for a run that opened the test rows"),
        (("clean", "--into", "data"), "--into must name a folder that is empty"),
    ],
)
def test_bad_input_is_one_error_and_exit_code_2(project, capfd, arguments, words):
    assert leave("reproduce", *arguments) == 2
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert words in said


def test_a_commit_that_is_nowhere_is_said(project, monkeypatch):
    monkeypatch.setattr(RecordedRun, "commit", "f" * 40)
    with pytest.raises(ReproduceError, match=r"commit f{40} of the run must be in the repository"):
        again("clean", project)


def test_a_patch_that_does_not_apply_is_said_with_what_it_lacks(project, monkeypatch):
    patch = (
        b"# left out: big.csv (4.0 MB, more than 1 MB)\n"
        + git(project, "diff", "HEAD~1", "HEAD").replace("length", "depth").encode()
    )
    monkeypatch.setattr(RecordedRun, "patch", patch)
    with pytest.raises(ReproduceError, match=r"source/uncommitted\.diff\) do not apply to commit .*left out: big\.csv"):
        again("clean", project)


# -- what is uncommitted comes from the record, and may be anybody's --------------------------------------------------------


def patch_of(project: Path, scratch: Path, files: dict[str, str], link: str = "") -> bytes:
    """What `git diff` says of these files, and of a symbolic link, on top of the commit that the runs were made of."""
    clone, commit = scratch / "clone", recorded_commit(project)
    call("git", "clone", "--quiet", "--no-checkout", project, clone, cwd=scratch)
    git(clone, "checkout", "--quiet", "--detach", commit)
    for name, text in files.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(text)
    if link:
        (clone / link).symlink_to("/etc/passwd")
    git(clone, "add", "--all", "--force")
    return git(clone, "diff", "--binary", "--cached", "HEAD").encode()


def recorded_commit(project: Path) -> str:
    [clean] = [run for run in query.recorded(Experiment().tracking, project) if run.name == "clean"]
    return client_of(project).get_run(clean.id).data.tags[COMMIT]


def test_uncommitted_code_runs_only_with_trust_and_the_commit_says_whose_code_runs(project, tmp_path, monkeypatch, capfd):
    ours = dict.fromkeys(("_deltarule.py", "backends/__init__.py", "pipelines/__init__.py", "pipelines/cli.py"), MARK)
    monkeypatch.setattr(RecordedRun, "patch", patch_of(project, tmp_path, ours))
    monkeypatch.setenv("MARK", str(tmp_path / "ran"))
    assert leave("reproduce", "clean") == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if "--trust" in line]
    assert all(name in line for name in ours), line
    assert leave("reproduce", "clean", "--trust") == 0
    assert "runs the installed deltarule" in capfd.readouterr().out and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    ["tool.py", "lib/a.PTH", "lib/_x.cpython-311.so", "lib/libx.so.1", "Pipelines/notes.txt", "a/backends/x", ".dvc/config"],
)
def test_what_counts_as_code_is_named(project, tmp_path, monkeypatch, name):
    monkeypatch.setattr(RecordedRun, "patch", patch_of(project, tmp_path, {name: "x\n", "notes.txt": "y\n"}))
    with pytest.raises(ReproduceError, match=rf"touch code, which would be executed: {re.escape(name)};"):
        again("clean", project)


def test_links_and_submodules_are_refused_whoever_is_trusted(project, tmp_path, monkeypatch):
    submodule = (
        f"diff --git a/sub b/sub\nnew file mode 160000\nindex {'0' * 40}..{'a' * 40}\n--- /dev/null\n+++ b/sub\n"
        f"@@ -0,0 +1 @@\n+Subproject commit {'a' * 40}\n"
    )
    for name, patch in (("secrets", patch_of(project, tmp_path, {}, link="secrets")), ("sub", submodule.encode())):
        monkeypatch.setattr(RecordedRun, "patch", patch)
        with pytest.raises(ReproduceError, match=f"no symbolic link and no submodule, got: {name};"):
            again("clean", project, trust=True)


def test_a_relative_entry_of_pythonpath_names_nothing_in_the_checkout(project, tmp_path, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path / "ran"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["lib", "", str(tmp_path)]))
    assert again("clean", project).verdict.word == "bit-equal"
    assert not (tmp_path / "ran").exists(), "lib/sitecustomize.py of the commit was run"


def test_where_no_run_was_ever_made_it_is_said(tmp_path):
    with pytest.raises(TrackingError, match="there is no store") as raised:
        again("x", tmp_path)
    assert raised.value.exit_code == 2 and not list(tmp_path.iterdir())


def test_an_interruption_leaves_no_temporary_folder(project, monkeypatch, tmp_path):
    def interrupted(stage, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_stage", interrupted)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        again("clean", project, keep=True)
    assert not list(tmp_path.iterdir())


def test_the_md5_of_a_file_that_dvc_lock_knows_is_told(tmp_path):
    project, checkout = tmp_path / "project", Checkout(tmp_path / "again", tmp_path / "again")
    rows(project / "data/rows.csv", 2)
    checkout.top.mkdir()
    (checkout.top / "dvc.lock").write_text("stages:\n  split:\n    deps:\n    - path: data/rows.csv\n      md5: ab12\n")
    assert restore("data/rows.csv", project, checkout) == [RestoredFile("data/rows.csv", "project", "ab12")]


def test_a_path_that_leads_out_of_the_checkout_writes_nothing(tmp_path):
    checkout = Checkout(tmp_path / "again", tmp_path / "again")
    with pytest.raises(ReproduceError, match=r"must lie in its git repository, or be an absolute path, got \.\./rows\.csv"):
        restore("../rows.csv", tmp_path, checkout)
    assert not list(tmp_path.iterdir())


def test_a_project_in_a_folder_of_its_repository_is_found_there(tmp_path):
    inner = tmp_path / "all/flowers"
    rows(inner / "rows.csv", 1)
    git(tmp_path / "all", "init", "--quiet")
    git(tmp_path / "all", "add", "--all")
    git(tmp_path / "all", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--message", "one")
    checkout = check_out(inner, git(inner, "rev-parse", "HEAD").strip(), b"", tmp_path / "again")
    assert checkout.project == tmp_path / "again/flowers" and (checkout.project / "rows.csv").is_file() and checkout.code is None


# -- what cannot be run again ---------------------------------------------------------------------------------------------


def test_runs_that_cannot_be_compared_with_are_refused_with_the_reason(tmp_path):
    trial = {"deltarule.kind": "trial", "deltarule.study": "s", "deltarule.trial": "4", COMMIT: "a" * 40}
    cases = {
        "is still running": ("RUNNING", {}),
        "was killed before it ended": ("KILLED", {}),
        "has none: diverged at step 3": ("FAILED", {"deltarule.message": "diverged at step 3"}),
        "is a study; name one of its trials, or run the study again, by its params.yaml: deltarule search --anew --name s": (
            "FINISHED", {"deltarule.kind": "study", "deltarule.study": "s"},
        ),
        "it was PRUNED; run its spec by itself: deltarule study export s --as spec --trial 4": (
            "KILLED", trial | {"deltarule.state": "PRUNED"},
        ),
        "is the mean of 3 seeds": ("FINISHED", trial | {"deltarule.seeds": "3"}),
        "has not all of it": ("FINISHED", trial),
    }  # fmt: skip
    for words, (status, tags) in cases.items():
        with pytest.raises(ReproduceError, match=words):
            runnable(Recorded("ab12", "a run", status, tags, {}, tmp_path))


def test_a_run_without_a_commit_is_refused(project, tmp_path):
    run = recorded(project, "clean")
    run.tags.pop(COMMIT)
    with pytest.raises(ReproduceError, match="has no commit to check out"):
        runnable(run)


def test_the_spec_of_a_trial_is_read_back_from_its_params():
    whole = Experiment.model_validate({**BLOCKS, "data": {"source": "digits"}, "regularization": {"l1": [0.0, 1e-4]}})
    params = {key: value if isinstance(value, str) else json.dumps(value) for key, value in flat(whole).items()}
    found = Experiment.model_validate(nested({**params, "regularization.l1 or": "range"}))
    assert found.model_dump(include={"seed", "data", "model", "regularization", "train"}) == whole.model_dump(
        include={"seed", "data", "model", "regularization", "train"}
    )


# -- verdicts -------------------------------------------------------------------------------------------------------------


def recorded(project: Path, name: str) -> Recorded:
    """A launch as if it were fetched, from its own outs."""
    [folder] = (project / "runs").glob(f"*-{name}")
    run = Recorded("ab12", name, "FINISHED", {COMMIT: "a" * 40}, {}, folder / "record")
    if not run.folder.exists():
        shutil.copytree(folder / "outputs", run.folder, ignore=shutil.ignore_patterns("*.npy"))
        shutil.copy(folder / "params.yaml", run.folder)
    return run


@pytest.fixture
def pair(project, tmp_path):
    """A run on record, which a test may change, and the same outs as a reproduction of it."""
    shutil.copytree(recorded(project, "clean").folder, tmp_path / "record")
    [folder] = (project / "runs").glob("*-clean")
    return RecordedRun(Recorded("ab12", "clean", "FINISHED", {COMMIT: "a" * 40}, {}, tmp_path / "record")), RunPaths(folder)


def shift(run: RecordedRun, column: str, by: float, epoch: int = 2) -> None:
    """Change one number of the history on record."""
    path = run.recorded.folder / "train/history.csv"
    head, *lines = path.read_text().splitlines()
    place, cells = head.split(",").index(column), lines[epoch - 1].split(",")
    cells[place] = repr(float(cells[place]) + by)
    lines[epoch - 1] = ",".join(cells)
    path.write_text("\n".join([head, *lines]) + "\n")


def test_the_same_bytes_are_bit_equal(pair):
    found = compare(*pair)
    assert found.word == "bit-equal" and not found.begins and not found.other and len(found.same) == 5


@pytest.mark.parametrize(
    "column, by, word",
    [
        ("val_loss", 1e-7, "within tolerance"),
        ("val_loss", 1e-3, "different"),
        ("delta_rms_1", 1e-3, "within tolerance"),  # in float32 shown, not judged
        ("train_loss", float("nan"), "different"),
    ],
)
def test_a_difference_is_judged_by_the_tolerance_of_its_precision_and_its_first_epoch_is_named(pair, column, by, word):
    shift(pair[0], column, by)
    found = compare(*pair)
    assert (found.word, found.begins) == (word, f"epoch 2 ({column})")
    assert found.other == ("train/history.csv",)


def test_in_float64_everything_is_judged_and_by_1e_12(pair):
    pair[0].spec["train"]["precision"] = "float64"
    shift(pair[0], "delta_rms_1", 1e-9)
    assert compare(*pair).word == "different"


def test_other_rows_are_where_it_begins(pair):
    path = pair[0].recorded.folder / "data/about.json"
    about = read_json(path)
    write_json(path, {**about, "sha256": {**about["sha256"], "valid": "0" * 64}})
    found = compare(*pair)
    assert found.word == "different" and found.begins == "the split: its valid part"


def test_an_epoch_more_is_different(pair):
    path = pair[0].recorded.folder / "train/history.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    found = compare(*pair)
    assert found.word == "different" and found.begins.startswith("epoch 3 (epochs")


def test_another_model_is_judged_by_what_it_says_of_the_validation_rows(pair):
    from backends import weights

    path = pair[0].recorded.folder / "train/model.safetensors"
    trial, flat_weights = weights.load(path)
    for by, word in ((1e-7, "within tolerance"), (1e-2, "different")):
        weights.save(path, trial, flat_weights + by)
        found = compare(*pair)
        named = {one.quantity: one for one in found.quantities}
        assert found.word == word and named["weights"].passed is None
        assert named["outputs on the validation rows"].passed == (word != "different")


def test_differences_of_the_environment_are_listed(pair):
    then, now = pair[0].run, pair[0].run
    then["environment"] |= {"cpu": "another processor", "threads": 8}
    then["versions"]["numpy"] = "1.0"
    then["fingerprint"] = "of other code"
    found = {name: was for name, was, _ in differences(then, now)}
    assert found == {
        "cpu": "another processor",
        "threads": "8",
        "version of numpy": "1.0",
        "deltarule's own code (fingerprint)": "of other code",
    }


# -- this repository, and studies -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_where_the_repository_holds_deltarule_the_code_of_the_commit_runs(tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    changes = ("model.hidden=[8]", "train.epochs=2", "train.backend=reference", "data.source=iris")
    options = [part for change in changes for part in ("--set", change)]
    deltarule = (sys.executable, "-m", "pipelines.cli")
    call(*deltarule, "run", "--name", "before", *options, cwd=project, PYTHONPATH=str(project))
    draws = project / "backends/draws.py"
    more = "\n\n_bound = bound\n\n\ndef bound(trial, layer):\n    return 1.5 * _bound(trial, layer)\n"
    draws.write_text(draws.read_text() + more)
    git(project, "commit", "--quiet", "--all", "--message", "other weights")
    said = call(*deltarule, "reproduce", "before", "--json", cwd=project, PYTHONPATH=str(project), check=False)
    assert said.returncode == 0, said.stderr
    assert "runs the code of that commit" in said.stderr and json.loads(said.stdout)["verdict"] == "bit-equal"


@pytest.mark.slow
def test_a_trial_of_a_study_is_run_again_by_its_params_and_a_study_by_the_command_that_is_named(project):
    from pipelines.search import search

    space = {"model.dropout": {"low": 0.0, "high": 0.5}, "model.activation": {"choices": ["relu", "tanh"]}}
    experiment = spec("iris", search={"space": space, "trials": 2, "generation": 2})
    search(experiment, name="two")
    found = again("two 1", project)
    assert found.verdict.word == "bit-equal" and found.verdict.quantities
    with pytest.raises(ReproduceError, match="is a study") as refused:
        again("two", project)
    (project / "params.yaml").write_text(dump(experiment))
    assert leave(*str(refused.value).partition("deltarule ")[2].split()) == 0
    (project / "params.yaml").write_text("{}\n")
