"""What differs from the commit is kept as a patch that makes the same source again, and that holds no secret."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipelines.redact import redact, redact_command, secrets_of_the_environment
from pipelines.tracking import provenance

SECRET, LONG = "hunter2-9c1f", "Zx81kqPwT7vYb3cQ9dLmN2aRs5uEfGhJkL0o"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path):
    """A repository with one commit, whose owner has settings that change what git diff writes."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    for key, value in (("diff.noprefix", "true"), ("color.ui", "always"), ("diff.external", "false"), ("core.autocrlf", "false")):
        git(folder, "config", key, value)
    (folder / "code").mkdir()
    for name in ("code/a.py", "code/b.py", "gone.txt", "moved.txt", "dvc.lock", "params.yaml", "dvc.yaml"):
        (folder / name).write_text(f"{name}\n" * 20)
    (folder / "picture.bin").write_bytes(bytes(range(256)) * 4)
    (folder / ".gitignore").write_text("ignored/\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def change(project: Path) -> None:
    (project / "code/a.py").write_text("changed ü\r\n" + "code/a.py\n" * 19 + "no newline at the end")
    (project / "picture.bin").write_bytes(bytes(range(256))[::-1] * 4)
    (project / "gone.txt").unlink()
    (project / "moved.txt").rename(project / "moved to.txt")
    (project / "new Ω.py").write_text("x = 1\n")
    (project / "empty").write_text("")
    (project / "code/new.bin").write_bytes(os.urandom(3000))
    (project / "link").symlink_to("code/a.py")
    (project / "code/b.py").chmod(0o755)
    for name in ("ignored/x", "outputs/y", ".mlflow/z", "runs/1/params.yaml"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("no source")
    (project / "dvc.lock").write_text("rewritten by the pipeline")


def files(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """name -> (content, may be executed), of all that is source."""
    skipped = (".git", "ignored", "outputs", ".mlflow", "runs", "dvc.lock")
    found = [path for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in skipped and not path.is_dir()]
    return {
        str(path.relative_to(folder)): (
            os.readlink(path).encode() if path.is_symlink() else path.read_bytes(),
            os.access(path, os.X_OK),
        )
        for path in found
    }


def test_the_patch_makes_the_same_source_from_the_commit_and_touches_nothing(project, tmp_path):
    change(project)
    git(project, "add", "code/a.py")  # whether it is staged is no matter
    before = git(project, "status", "--porcelain"), sorted(p for p in (project / ".git").rglob("*"))
    found = provenance.uncommitted(project / "runs/1")
    assert (git(project, "status", "--porcelain"), sorted(p for p in (project / ".git").rglob("*"))) == before
    new = "new and no code, SHA-256 "
    left = {
        "code/new.bin": new,
        "empty": f"{new}e3b0c442",
        "moved to.txt": new,
        "link": "a new symbolic link",
        "picture.bin": "a binary file",
    }
    assert found.state == "cut" and all(f"# left out: {name} ({why}".encode() in found.patch for name, why in left.items())
    again = tmp_path / "again"
    git(tmp_path, "clone", "-q", str(project), str(again))
    (tmp_path / "patch").write_bytes(found.patch)
    git(again, "apply", str(tmp_path / "patch"))
    there, here = files(again), files(project)
    assert there.pop("picture.bin") != here.pop("picture.bin")
    assert there == {name: content for name, content in here.items() if name not in left}


def test_a_clean_tree_has_no_patch_and_a_folder_in_no_repository_no_commit(project, tmp_path):
    (project / "dvc.lock").write_text("rewritten by the pipeline")
    assert provenance.uncommitted(project) == provenance.Uncommitted()
    assert provenance.commit(project)["mlflow.source.git.dirty"] == "false"
    assert (provenance.uncommitted(tmp_path), provenance.commit(tmp_path)) == (provenance.Uncommitted(), {})


def test_a_repository_without_a_commit_is_no_matter(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    assert (provenance.uncommitted(tmp_path), provenance.commit(tmp_path)) == (provenance.Uncommitted(), {})


def test_a_large_file_is_left_out_and_told(project, monkeypatch):
    monkeypatch.setattr(provenance, "FILE_BYTES", 1000)
    (project / "code/b.py").write_text("1\n" * 1000)
    (project / "code/a.py").write_text("small")
    found = provenance.uncommitted(project)
    assert found.state == "cut"
    header, _, patch = found.patch.partition(b"diff --git")
    assert b"# left out: code/b.py (0.0 MB" in header
    assert b"code/a.py" in patch and b"code/b.py" not in patch


def test_a_file_that_became_a_link_is_in_the_patch(project):
    (project / "gone.txt").unlink()
    (project / "gone.txt").symlink_to("moved.txt")
    (project / "moved.txt").write_text("after it")
    found = provenance.uncommitted(project)
    assert found.state == "whole" and b"new file mode 120000" in found.patch and b"+after it" in found.patch


def test_what_comes_once_the_patch_is_full_is_left_out(project, monkeypatch):
    monkeypatch.setattr(provenance, "PATCH_CHARACTERS", 4000)
    for number in range(4):
        (project / f"new{number}.py").write_text("x" * 1000)
    found = provenance.uncommitted(project)
    assert found.state == "cut" and b"# left out: new3.py (the patch had" in found.patch and b"b/new1.py" in found.patch


# A place for a secret -> how it stands there. Those of files that a repository would not hold are planted as new ones.
YAML = {
    "in a URL": f"uri: postgresql://me:{SECRET}@host/db",
    "under its name": f"db_password: {SECRET}",
    "quoted": f'"password": "{SECRET}"',
    "on the next line": f"password:\n  {SECRET}",
    "folded": f"password: >-\n    {SECRET}",
    "a block": f"secret_key: |\n  {SECRET}",
    "in a list": f"tokens:\n  - {SECRET}",
    "in braces": f"db: {{user: me, passwd: {SECRET}}}",
    "anchored": f"pwd: &p {SECRET}",
    "commented": f"# api_key: {SECRET}",
    "with a prefix": f"MYSQL_ROOT_PASSWORD: {SECRET}",
    "a header": f"Authorization: Bearer {SECRET}",
    "OPENAI_KEY": f"OPENAI_KEY: sk-proj-{LONG}",
    "sig": f"url: https://a.blob.core.windows.net/c?sv=2022&sig={LONG}%3D",
    "AWS": "key: AKIAZX81KQPWT7VYB3CQ",
    "pass": f"pass: {SECRET}",
    "curl": f"run: curl -u me:{SECRET} https://host",
    "mysql": f"run: mysql -u me -p{SECRET}",
    "Slack": f"hook: https://hooks.slack.com/services/T01ABCDEF/B01ABCDEF/{LONG[:24]}",
    "JWT": "t: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    "an account": f"AccountKey={LONG}TyrEwQ==",
    "private key": f"k: |\n  -----BEGIN OPENSSH PRIVATE KEY-----\n  {SECRET}\n  -----END OPENSSH PRIVATE KEY-----",
}
PYTHON = {
    "quoted": f"password = '{SECRET}'",
    "DB_PASS": f"DB_PASS = '{SECRET}'",
    "words": "OPENAI_KEY = 'hunterAhunterA'",
    "an argument": f"connect(user='me', password='{SECRET}')",
    "a key": f"config['api_key'] = '{SECRET}'",
    "in a dict": f"x = {{'token': '{SECRET}'}}",
    "a default": f"os.environ.get('MY_TOKEN', '{SECRET}')",
    "two lines": f"password = (\n    '{SECRET}'\n)",
    "a URL": f"url = 'https://me:{SECRET}@host/x'",
    "bytes": f"secret = b'{SECRET}'",
    "a look": f"client = Client('ghp_{LONG}')",
    "a long word": f"sign('{LONG}/wQ')",
}
NAMES = [
    ".env", ".envrc", "prod.env", ".env.local", ".pgpass", ".netrc", ".pypirc", ".npmrc",
    ".docker/config.json", ".aws/credentials", ".kube/config", ".ssh/id_rsa", "id_ed25519", "server.pem", "server.key", "app.p12",
    "prod.tfvars", "secrets.py", "db_credentials.py", "service-account.json", "notes.txt", "model.pkl", "cells.ipynb", "any.conf",
]  # fmt: skip
PLANTED = (
    [("params.yaml", kind, text) for kind, text in YAML.items()]
    + [("code/a.py", kind, text) for kind, text in PYTHON.items()]
    + [("new.py", kind, text) for kind, text in PYTHON.items()]
    + [(name, "by its name", f"ANYTHING = 1\nhost:5432:db:me:{SECRET}") for name in NAMES]
    + [("picture.bin", "binary", f"\0{SECRET}")]
)


@pytest.mark.parametrize(("name", "kind", "text"), PLANTED, ids=lambda one: one if len(one) < 20 else "")
def test_a_file_with_a_secret_is_left_out_whole_and_named(project, name, kind, text):
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text(f"first: 1\n{text}\n")
    found = provenance.uncommitted(project)
    header, _, patch = found.patch.decode().partition("diff --git")
    assert f"# left out: {name} (" in header and not patch and found.state == "cut"
    assert not [word for word in (SECRET, LONG[:24]) if word in header]


def test_in_source_code_what_is_not_quoted_is_no_secret(project):
    (project / "code/a.py").write_text("tokens = read(file)\nmax_tokens=12\ndef f(password: str, token=None): ...\n")
    (project / "code/b.py").write_text("key = row_key = 'name'\nSORT_KEYS = 'ab'\nauth(pin, -u)\n")
    assert provenance.uncommitted(project).state == "whole"


def test_a_removed_secret_is_left_out_too(project):
    (project / "code/a.py").write_text(f"api_key = '{SECRET}'\n")
    git(project, "commit", "-q", "-a", "-m", "oh")
    (project / "code/a.py").write_text("api_key = read()\n")
    found = provenance.uncommitted(project)
    assert SECRET.encode() not in found.patch and found.state == "cut"


def test_git_that_does_not_answer_is_said(project, monkeypatch):
    (project / "code/a.py").write_text("x")

    def slow(*arguments, **more):
        raise subprocess.TimeoutExpired("git", 10)

    monkeypatch.setattr(provenance, "_take", slow)
    found = provenance.uncommitted(project)
    assert found.state == "cut" and b"git took longer than 10 s" in found.patch


def test_a_run_says_how_it_was_begun_and_the_first_time_counts(project, monkeypatch):
    git(project, "remote", "add", "origin", f"https://{SECRET}@example.org/a/b.git")
    monkeypatch.setattr(
        "sys.argv", ["/home/me/bin/deltarule", "run", "--set", f"tracking.uri=http://me:{SECRET}@host", "--name", "a b"]
    )
    run = project / "runs/1"
    provenance.keep(run, "deltarule run")
    tags, diff = provenance.kept(run)
    assert tags["deltarule.command"] == "deltarule run --set 'tracking.uri=http://***@host' --name 'a b'"
    assert tags["mlflow.source.name"] == "deltarule run"
    assert tags["mlflow.source.git.repoURL"] == "https://***@example.org/a/b.git"
    assert (tags["mlflow.source.git.commit"], tags["mlflow.source.git.branch"]) == (
        git(project, "rev-parse", "HEAD"), git(project, "branch", "--show-current"),
    )  # fmt: skip
    assert diff is None
    (project / "code/a.py").write_text("later")
    provenance.keep(run, "deltarule run")
    assert provenance.kept(run) == (tags, None)
    note = run / provenance.KEPT / "tags.json"
    for damage in ("", "null", "[1]", "{}", '{"of": "", "tags": 3}', "[" * 5000):
        note.write_text(damage)
        assert provenance.kept(run) == ({}, None)
    provenance.keep(run, "again")
    assert provenance.kept(run)[0]["mlflow.source.name"] == "again"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["run", "--set", f"a.token={SECRET} more"], "run --set 'a.token=***'"),
        (["run", "--password", SECRET, "--name", "x"], "run --password '***' --name x"),
        (["run", "--set", f"data.spellings={{api_key: {{a: {SECRET}}}}}"], "***"),
        (["run", "--set", "data.columns.tokens=numeric"], "run --set data.columns.tokens=numeric"),
        (["run", "--name", "glpat-abcdefghij0123456789"], "run --name '***'"),
    ],
)
def test_a_command_is_shown_without_secrets(arguments, shown):
    assert shown in redact_command(arguments)


def test_what_the_environment_calls_a_secret_is_hidden_wherever_it_stands(monkeypatch):
    for name, value in {"MY_TOKEN": SECRET, "PATH_KEY": "/home/me/key", "X_AUTH": "short"}.items():
        monkeypatch.setenv(name, value)
    secrets_of_the_environment.cache_clear()
    try:
        assert redact(f"run {SECRET} of /home/me/key, short") == "run *** of /home/me/key, short"
    finally:
        secrets_of_the_environment.cache_clear()
