"""A run's log is whole or mended, tells each thing once, keeps what it names, and knows when its writer is gone."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import call
from synthetic_run import make, write_json

from pipelines.record import Outcome, Recording, events
from pipelines.record.sync import send_waiting
from pipelines.spec import Experiment
from pipelines.tracking import TrackingError, drop, mark_killed, waiting
from pipelines.tracking.events import Event
from pipelines.tracking.journal import Journal, Sent, journals

HERE = platform.node()
EXPERIMENT = Experiment.model_validate({"tracking": {"experiment": "tests"}})
HEAD = {
    "name": "a run",
    "identity": {"deltarule.fingerprint": "ab", "deltarule.origin": "pipeline"},
    "tags": {},
    "tracking": {"uri": None, "experiment": "tests"},
    "given": None,
}


def journal_of(project, *more, host=None, hold=False):
    begin = [] if host is None else [Event("begin", "create", {"host": host})]
    return Journal.create(project, [Event("create", "create", HEAD), *begin, *more], project, hold)


def epoch(number, **values):
    return Event("metrics", "train", values or {"loss": 1 / number}, number)


def test_a_torn_last_line_is_not_read_and_is_cut_before_the_next(tmp_path):
    journal = journal_of(tmp_path, epoch(1))
    with journal.path.open("a") as file:
        file.write('{"kind": "metrics", "sta')
    assert [event.kind for event in journal.read()] == ["create", "metrics"]
    journal.mend()
    journal.append([epoch(2)])
    assert [event.step for event in journal.read()] == [0, 1, 2]


def test_what_is_no_event_is_left_out_and_the_rest_is_read(tmp_path):
    journal = journal_of(tmp_path)
    with journal.path.open("ab") as file:
        file.write(b'\0\0\0\0\n{"kind": "metrics"}\n[1]\n')
    journal.append([epoch(1)])
    assert [event.kind for event in journal.read()] == ["create", "metrics"]


def test_events_have_the_time_at_which_they_were_written(tmp_path):
    journal = journal_of(tmp_path, epoch(1), replace(epoch(2), time=7))
    first, second, third = journal.read()
    assert first.time == second.time > 10**12 and third.time == 7


def test_what_is_told_is_not_told_again_and_what_changed_is(tmp_path):
    journal = journal_of(tmp_path, epoch(1, loss=0.5, rate=float("nan")))
    journal.add([epoch(1, loss=0.5, rate=float("nan"))], tmp_path)
    journal.add([epoch(1, loss=0.25, rate=float("nan")), epoch(2, loss=0.5)], tmp_path)
    *_, changed, new = journal.read()
    assert (changed.values["loss"], new.values) == (0.25, {"loss": 0.5})
    assert len(list(journal.read())) == 4


def test_what_it_keeps_outlives_the_outs(tmp_path):
    places = make(tmp_path / "copy")
    record = events(places)
    before = places.history.read_bytes()
    journal = Journal.create(tmp_path, [Event("create", "create", HEAD), *record], places.root)
    places.history.unlink()
    assert (journal.files / "outputs/train/history.csv").read_bytes() == before


def test_files_of_a_stage_that_was_carried_out_again_are_kept_anew(tmp_path):
    places = make(tmp_path)
    journal = Journal.create(tmp_path, [Event("create", "create", HEAD), *events(places)], tmp_path)
    count = len(list(journal.read()))
    journal.add(events(places), tmp_path)
    assert len(list(journal.read())) == count
    path = tmp_path / "outputs/test/metrics.json"
    path.unlink()
    write_json(path, {"accuracy": 0.5, "loss": 0.3})
    journal.add(events(places), tmp_path)
    told = [(event.kind, event.stage) for event in list(journal.read())[count:]]
    assert told == [
        ("inputs", "test"),
        ("metrics", "test"),
        ("artifacts", "test"),
        ("tags", "test"),
        ("mark", "test"),
        ("end", "end"),
    ]  # the note tells of it too
    assert json.loads((journal.files / "outputs/test/metrics.json").read_text())["accuracy"] == 0.5


# What it may name ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["artifacts", "model"])
@pytest.mark.parametrize("below", ["../../../../secret.txt", "/etc/passwd", "outputs/../../events.jsonl", "linked", "folder/x"])
def test_a_file_that_is_not_the_runs_own_is_refused_by_name_and_no_store_is_asked(tmp_path, kind, below):
    (tmp_path / "secret.txt").write_text("a secret")
    journal = journal_of(tmp_path, Event("end", "end", {"status": "FINISHED"}))
    link = {"linked": "secret.txt", "folder/x": "."}.get(below)
    named = below.removesuffix("/x")
    if link:
        (journal.files / named).symlink_to(tmp_path / link)
    journal.path.write_text("")
    journal.append([Event("create", "create", HEAD), Event(kind, "train", {"model": below})])
    with pytest.raises(TrackingError, match=rf"{journal.id} names '{named}', which is not a file of its run"):
        list(send_waiting(tmp_path, EXPERIMENT.tracking))
    assert not (tmp_path / ".mlflow/mlflow.db").exists() and "not a file of its run" in journal.sent().error
    assert drop(tmp_path, journal.id).log == journal.id and journals(tmp_path) == []


@pytest.mark.parametrize("place", ["../figures.png", "/tmp/params.yaml"])
def test_a_place_that_is_not_in_the_run_is_refused_too(tmp_path, place):
    journal_of(tmp_path, Event("text", "train", {place: "a: b"}), Event("end", "end", {"status": "FINISHED"}))
    with pytest.raises(TrackingError, match="not a file of its run"):
        list(send_waiting(tmp_path, EXPERIMENT.tracking))


def test_a_link_among_the_outs_is_refused_before_anything_is_made_of_them(tmp_path):
    places = make(tmp_path / "copy")
    journal = Journal.create(tmp_path, [Event("create", "create", HEAD), *events(places)], places.root)
    (journal.files / "outputs/train/weights.csv").unlink()
    (journal.files / "outputs/train/weights.csv").symlink_to("/etc/passwd")
    with pytest.raises(TrackingError, match=r"outputs/train/weights\.csv', which is not a file of its run"):
        list(send_waiting(tmp_path, EXPERIMENT.tracking))


def test_a_journal_that_came_with_a_clone_is_refused_until_git_knows_nothing_of_it(tmp_path):
    journal = journal_of(tmp_path, Event("end", "end", {"status": "FINISHED"}))
    assert (tmp_path / ".deltarule").stat().st_mode & 0o777 == 0o700
    call("git", "init", "--quiet", cwd=tmp_path)
    call("git", "add", "--force", ".deltarule", cwd=tmp_path)
    with pytest.raises(TrackingError, match=f"git tracks the journal {journal.id}") as refused:
        list(send_waiting(tmp_path, EXPERIMENT.tracking))
    assert not (tmp_path / ".mlflow").exists()
    call("bash", "-c", re.search(r"\((git rm .*?)\)", str(refused.value))[1], cwd=tmp_path)
    assert len(list(send_waiting(tmp_path, EXPERIMENT.tracking))) == 1


@pytest.mark.parametrize("key", ["uri", "store"])  # until 0.1.0, and now
def test_a_store_that_a_journal_names_is_compared_and_never_connected_to(tmp_path, key, monkeypatch):
    if key == "store":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///.mlflow/mlflow.db")
    head = {**HEAD, "tracking": {key: "http://somewhere.example.org", "experiment": "tests"}}
    end = Event("end", "end", {"status": "FINISHED"})
    Journal.create(tmp_path, [Event("create", "create", head), end], tmp_path)
    wanted = r"'a run' waits for the store http://somewhere.example.org, and today's is sqlite:.*MLFLOW_TRACKING_URI"
    with pytest.raises(TrackingError, match=wanted):
        list(send_waiting(tmp_path, EXPERIMENT.tracking))
    assert not (tmp_path / ".mlflow").exists() and len(journals(tmp_path)) == 1


# Who writes it ---------------------------------------------------------------------------------------------------------


def test_a_run_whose_process_is_gone_ends_as_killed_at_its_last_sign_of_life(tmp_path):
    journal = journal_of(tmp_path, replace(epoch(1), time=7), host=HERE)
    assert journal.state().dead
    mark_killed(tmp_path)
    mark_killed(tmp_path)
    tags, end = list(journal.read())[-2:]
    assert (end.values, end.time, tags.values["deltarule.ended"]) == ({"status": "KILLED"}, 7, "killed")
    assert len(list(journal.read())) == 5


def test_a_run_of_an_earlier_version_whose_process_is_gone_is_killed_too(tmp_path):
    process = {"host": HERE, "pid": os.getpid(), "started": "a moment ago"}
    journal = journal_of(tmp_path, Event("begin", "create", {"process": process}))
    mark_killed(tmp_path)
    assert journal.state().status == "KILLED"


def test_a_live_run_and_one_of_another_host_are_left_alone(tmp_path):
    here, there = journal_of(tmp_path, host=HERE, hold=True), journal_of(tmp_path, host="elsewhere")
    before = [journal.path.read_bytes() for journal in (here, there)]
    mark_killed(tmp_path)
    assert [journal.path.read_bytes() for journal in (here, there)] == before
    assert here.state().running and there.state().running


@pytest.fixture
def other():
    """Carries out a line about a journal in another process, which lives until it is killed."""
    code = "import sys, pathlib, pipelines.tracking.journal as of\njournal = of.Journal(pathlib.Path(sys.argv[1]))"
    started = []

    def start(journal, line):
        process = subprocess.Popen(
            [sys.executable, "-c", f"{code}\n{line}\nprint('done', flush=True); input()", str(journal.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "done\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_one_process_sends_a_journal_at_a_time_and_a_killed_one_lets_it_go(tmp_path, other):
    journal = journal_of(tmp_path)
    sender = other(journal, "claim = journal.claim(); assert claim.__enter__()")
    with journal.claim() as ours:
        assert not ours and journal.is_sent()
    sender.kill()
    sender.wait()
    with journal.claim() as ours:
        assert ours


def test_the_claim_is_the_childs_from_the_moment_it_is_started_until_it_ends(tmp_path):
    journal = journal_of(tmp_path)
    claim = journal.claim_of_child()
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(claim,))
    os.close(claim)
    assert journal.is_sent()
    child.communicate()
    assert not journal.is_sent()


def test_a_run_that_was_killed_goes_on_beside_its_slow_sender_in_the_same_journal(tmp_path):
    journal = journal_of(tmp_path, Event("end", "end", {"status": "KILLED"}), host=HERE)
    with journal.claim() as ours:  # as of a sender that is still at work
        assert ours and Journal(journal.folder).go_on(Event("begin", "create", {"host": HERE}), 0)
    assert journal.state().running and not journal.over()
    journal.release()
    journal.remove()
    assert not journal.go_on(Event("begin", "create", {"host": HERE}), 0)


# What waits ------------------------------------------------------------------------------------------------------------


def test_what_waits_is_shown_without_asking_mlflow(tmp_path):
    goes_on = journal_of(tmp_path, epoch(1), host=HERE, hold=True)
    journal_of(tmp_path, host="elsewhere")
    journal_of(tmp_path, host=HERE)
    journal_of(tmp_path, Event("end", "end", {"status": "FINISHED"}))
    code = "import sys\nfrom pipelines.cli import main\ntry: main(['sync', '--status', '--json'])\nfinally: print(*sys.modules)"
    shown, modules = call(sys.executable, "-c", code, cwd=tmp_path).stdout.splitlines()
    found = {run["state"]: (run["events"], run["waiting"], run["error"]) for run in json.loads(shown)["runs"]}
    both = ("running here", "running on elsewhere", "killed", "finished")
    assert found == dict(zip(both, [(3, 3, ""), (2, 2, ""), (2, 2, ""), (2, 2, "")], strict=True))
    assert not {"mlflow", "sqlalchemy"} & set(modules.split())
    assert len(journals(tmp_path)) == len(waiting(tmp_path)) == 4
    goes_on.release()


def test_with_nothing_there_it_says_so(deltarule, tmp_path):
    assert deltarule("sync", "--status").stdout == "nothing waits for the store\n"
    assert list(tmp_path.iterdir()) == []


# Writing it while the run goes on --------------------------------------------------------------------------------------


@pytest.fixture
def unsent(monkeypatch):
    """No process is started that sends."""
    monkeypatch.setattr("pipelines.record.recording.Uploader", lambda *_: None)


def rows_of(places):
    with places.history.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_an_epoch_is_told_when_it_is_over_and_not_again_from_the_outs(tmp_path, unsent):
    places = make(tmp_path)
    recording = Recording(EXPERIMENT, places)
    recording.start("3f2a" + "0" * 28, 1)
    for row in rows_of(places)[:4]:
        recording.epoch(row)
    assert [event.step for event in recording.journal.read() if event.step] == [1, 2, 3, 4]
    recording.finish()
    assert sorted(event.step for event in recording.journal.read() if event.step) == [1, 2, 3, 4, 5, 6]
    assert "wait for the store" in recording.close().warning
    state = recording.journal.state()
    assert state.status == "FINISHED" and state.outs


def test_a_run_answers_while_its_sender_is_still_at_work(tmp_path, monkeypatch):
    class Busy:
        process = SimpleNamespace(poll=lambda: None)

        def __init__(self, journal, _):
            journal.note(Sent(run_id="ab"))

        def wait(self, *_):
            pass

        def close(self):
            return ""

    monkeypatch.setattr("pipelines.record.recording.Uploader", Busy)
    recording = Recording(EXPERIMENT, make(tmp_path))
    recording.start("3f2a" + "0" * 28, 1)
    assert recording.journal.is_written()
    recording.finish()
    assert recording.close() == Outcome("ab", complete=False)
    assert recording.journal.over() and not recording.journal.is_written()  # its sender removes it


def test_an_epoch_of_folds_is_told_once_it_is_over_in_each(tmp_path, unsent):
    recording = Recording(EXPERIMENT, make(tmp_path))
    recording.start("3f2a" + "0" * 28, 2)
    for number, fold, loss in ((1, 0, 0.5), (2, 0, 0.4), (1, 1, 0.3)):
        recording.epoch({"epoch": number, "train_loss": loss, "fold": fold})
    [told] = [event for event in recording.journal.read() if event.step]
    assert (told.step, told.values) == (1, {"train_loss": 0.4})
    recording.kill("a test")
    recording.close()


def test_a_run_of_the_pipeline_that_was_killed_goes_on_in_its_journal_and_another_begins_its_own(tmp_path, unsent):
    places = make(tmp_path)
    first = Recording(EXPERIMENT, places)
    first.start("3f2a" + "0" * 28, 1)
    first.epoch(rows_of(places)[0])
    first.kill("a test")
    first.close()
    again = Recording(EXPERIMENT, places)
    again.start("3f2a" + "0" * 28, 1)
    assert again.journal.id == first.journal.id and again.journal.state().running
    for row in rows_of(places):
        again.epoch(row)
    again.finish()
    again.close()
    told = [(event.step, name) for event in again.journal.read() if event.kind == "metrics" for name in event.values]
    assert len(told) == len(set(told))
    other = Recording(EXPERIMENT, places, new_run=True)
    other.start("3f2a" + "0" * 28, 1)
    assert other.journal.id != first.journal.id
    other.fail("a test")
    other.close()


def test_a_log_that_cannot_be_written_is_told_and_ends_no_run(tmp_path, unsent):
    (tmp_path / ".deltarule").write_text("no folder")
    recording = Recording(EXPERIMENT, make(tmp_path))
    recording.start("3f2a" + "0" * 28, 1)
    recording.epoch({"epoch": 1, "train_loss": 0.5})
    recording.finish()
    assert "the log of the run could not be written" in recording.close().warning


def test_switched_off_it_writes_nothing(tmp_path):
    places = make(tmp_path)
    recording = Recording(Experiment.model_validate({"tracking": {"enabled": False}}), places)
    recording.start("ab", 1)
    recording.epoch({"epoch": 1, "train_loss": 0.5})
    recording.finish()
    assert recording.close().run_id is None and not (tmp_path / ".deltarule").exists()


def test_no_secret_reaches_the_log(tmp_path, unsent, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/deltarule", "run", "--set", "tracking.uri=https://me:hunter2@runs.example.org"])
    spec = {"data": {"source": "https://me:hunter2@example.org/rows.csv", "target": "y"}}
    planted = Experiment.model_validate({**spec, "tracking": {"uri": "https://hunter2@runs.example.org"}})
    recording = Recording(planted, make(tmp_path, spec=planted), name="pwd=hunter2")
    recording.start("3f2a" + "0" * 28, 1)
    recording.fail("could not read https://example.org/?token=hunter2")
    recording.close()
    text = recording.journal.path.read_text()
    assert "hunter2" not in text and '"command": "deltarule run --set' in text


def test_what_is_sent_stays_until_the_process_that_wrote_it_has_looked_how_it_came_out(tmp_path, other):
    for line, stays in (("", False), ("journal.hold()", True)):
        journal = journal_of(tmp_path, Event("end", "end", {"status": "FINISHED"}))
        journal.clear()
        assert journal.folder.exists(), "nothing of it was sent"
        writer = other(journal, line)
        journal.note(Sent(offset=journal.path.stat().st_size))
        journal.clear()
        assert journal.folder.exists() == stays
    writer.kill()
    writer.wait()
    journal.clear()
    assert not journal.folder.exists()


def test_what_its_sender_removed_meanwhile_is_passed_over_and_leaves_no_folder(tmp_path, monkeypatch):
    journal_of(tmp_path)
    [journal] = listed = journals(tmp_path)
    monkeypatch.setattr("pipelines.record.sync.journals", lambda project: listed)
    with journal.claim() as ours:
        assert ours
        journal.remove()
        journal.folder.mkdir()
        (journal.folder / "writing").touch()  # of one who looked at it meanwhile
    assert not journal.folder.exists()
    assert list(send_waiting(tmp_path, EXPERIMENT.tracking)) == []
    assert journal.title == "a run" and not journal.is_study
