"""A project of one's own from one file of data: what `deltarule new` writes, all of it or nothing.

Its params.yaml is this repository's own, filled in from the look that `deltarule data` shows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

import platformdirs

from backends import children
from backends.weights import write_atomically
from pipelines.data.columns import DataError, listed
from pipelines.data.inference import NO_VALUE
from pipelines.data.look import ColumnLook, Look, look, shown
from pipelines.spec import DataSpec, Experiment, load, models_schema
from pipelines.spec.blocks import FILES
from pipelines.spec.describe import split_path
from pipelines.spec.file import as_option, edit
from pipelines.spec.file import scalar as text
from pipelines.spec.identity import CODE, code_text

DVC_CONFIG = "[core]\n    analytics = false\n"
SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
TEMPLATE = Path(__file__).parent / "template"  # its params.yaml is a link to this repository's own
AT = 30  # column of a comment
FIELDS = 80  # of more columns, params.yaml has those that are remarkable
NAMED = 5  # categories and classes that a comment names
MORE_NO_VALUE = {*NO_VALUE, "none", "missing", "unknown"}  # among numbers


class ProjectError(ValueError):
    """A project that cannot be made as asked; nothing was written."""

    exit_code = 2


@dataclass(frozen=True)
class Created:
    """A project that was made: where, from which file in it, what was seen there, and what had to be initialised.

    `added`: file that was there -> lines that were added at its end. `kept`: files that were there and are as they were.
    """

    folder: Path
    source: str
    found: Look
    initialised: list[str] = field(default_factory=list)
    added: dict[str, int] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)


def create(
    folder: Path,
    data: Path,
    target: Sequence[str],
    task: str = "auto",
    changes: Mapping[str, object] | None = None,
    test: Path | None = None,
) -> Created:
    """Make `folder` a project that predicts the column `target` of the file `data`, which is copied into it unless it lies there.

    Nothing that is there is overwritten: .gitignore and .dvcignore get the lines that they lack, and a README.md stays alone.
    `changes`: dotted path below data -> value, what the spec is to say beside that. `test`: the test rows, if in a file of
    their own. Raises ProjectError, SpecError or DataError; then nothing was written.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not folder.is_dir():
        raise ProjectError(f"{folder} must be a folder or not there yet, found a file")
    given = {"train": data} if test is None else {"train": data, "test": test}
    places = {part: _place_of(file, folder, part) for part, file in given.items()}
    if len({*places.values()}) < len(places):
        raise ProjectError(f"--test must be a file of another name than --data's, got {test} and {data}")
    seen = view(given, target, task, changes or {})
    kind = "classes" if seen.found.classes else "numbers"
    template = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATE.iterdir()}
    source = " and ".join(places.values())
    readme = Template(template["README.md"]).substitute(name=folder.name, target=", ".join(target), source=source)
    stages = {"dvc.yaml": template["dvc.yaml"] + template[f"plots_of_{kind}.yaml"], "studies/dvc.yaml": template["studies.yaml"]}
    if test is not None:
        each = "${data.source.train}\n      - ${data.source.test}"
        stages = {name: text.replace("${data.source}", each) for name, text in stages.items()}
    code = code_text(backend())
    files = {"params.yaml": written(seen, places, folder.name), str(CODE): code, **stages}
    kept = ["README.md"] if os.path.lexists(folder / "README.md") else []
    files |= {} if kept else {"README.md": readme}
    ignored = {f".{name}": template[name] for name in ("dvcignore", "gitignore")}
    outside = {place: given[part] for part, place in places.items() if given[part].resolve() != (folder / place).resolve()}
    names = [*files, *outside]
    taken = sorted(name for name in names if os.path.lexists(folder / name))
    if taken:
        raise ProjectError(
            f"{folder} must be free for a new project, but it holds {', '.join(taken)}, and nothing is overwritten; "
            "choose another folder (one inside this is fine), or move them away"
        )
    check_git(folder)
    with _all_or_nothing(folder, names, ignored):
        for name, text in files.items():
            write_atomically(folder / name, text.encode())
        added = {name: _add_lines(folder / name, text) for name, text in ignored.items()}
        for place, file in outside.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / place)
        initialised = init(folder)
    return Created(folder, source, seen.found, initialised, {name: count for name, count in added.items() if count}, kept)


def _place_of(data: Path, folder: Path, part: str) -> str:
    """Where the data will lie in the project, as params.yaml names it."""
    option = "--data" if part == "train" else "--test"
    if not data.is_file():
        found = "a folder" if data.is_dir() else "nothing"
        raise ProjectError(f"{option} must name a file, found {found} at {data}")
    if not data.name.lower().endswith(FILES):
        way_out = "save the sheet as CSV first" if data.suffix.lower() in SHEETS else "write its rows as CSV or Parquet first"
        raise ProjectError(f"{option} must name a file that ends in {', '.join(FILES)}, got {data}; {way_out}")
    inside = data.resolve().is_relative_to(folder.resolve())
    return data.resolve().relative_to(folder.resolve()).as_posix() if inside else f"data/{data.name}"


@contextmanager
def _all_or_nothing(folder: Path, names: list[str], changed: Iterable[str]) -> Iterator[None]:
    """If something fails on the way, take away what was made of `names`, and of `changed`, or give back what these held."""
    before = {folder / name: (folder / name).read_bytes() for name in changed if (folder / name).exists()}
    new = [folder / name for name in (*names, *changed, ".git", ".dvc") if not os.path.lexists(folder / name)]
    folders = {above for path in new for above in path.parents if not above.exists()}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            path.write_bytes(content)
        for path in new:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for empty in sorted(folders, reverse=True):  # the innermost first
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()
        raise


def _add_lines(path: Path, text: str) -> int:
    """Write a file, or add the lines that it lacks at its end; how many were added."""
    if not path.exists():
        write_atomically(path, text.encode())
        return 0
    there = path.read_bytes()
    known = {line.strip() for line in there.decode(errors="replace").splitlines()}
    lacking = [line for line in text.splitlines() if line not in known and not line.startswith("#")]
    if lacking:
        gap = b"" if not there or there.endswith(b"\n") else b"\n"
        write_atomically(path, there + gap + "\n".join(["# of deltarule", *lacking, ""]).encode())
    return len(lacking)


# -- params.yaml --


@dataclass(frozen=True)
class View:
    """What was seen in a file. `block` is the spec's data block, with the markers that stand in the columns `gaps`."""

    found: Look
    block: DataSpec
    gaps: tuple[str, ...]
    changes: Mapping[str, object]  # dotted path below data -> value, as asked for


def view(files: Mapping[str, Path], target: Sequence[str], task: str, changes: Mapping[str, object]) -> View:
    """Look at the files, one a part.

    Raises ProjectError, SpecError or DataError for one that no spec could use, or not with these changes.
    """
    for path in changes:
        if not path.startswith("data."):
            raise ProjectError(f"--set {path}: must be a path below data, such as data.format.encoding; params.yaml has the rest")
        option = path.split(".")[1]
        if option in ("source", "target", "task"):
            raise ProjectError(f"--set {path}: must be given as --{option.replace('source', 'data')}")
    named = target[0] if len(target) == 1 else list(target)
    places = {part: str(file) for part, file in files.items()}
    stated = {"data.source": places if len(places) > 1 else places["train"], "data.target": named, "data.task": task}
    block = Experiment().override({**stated, **changes}).data
    try:
        found = look(block)
    except DataError as error:
        raise DataError(as_option(str(error))) from None
    amounts = [column for column in found.columns if column.kind != "categorical"]  # of a target NA may be a class
    words = {column.name: [word for word in column.odd if word.lower() in MORE_NO_VALUE] for column in amounts}
    gaps = tuple(name for name, there in words.items() if there)
    if gaps:
        markers = (*block.missing.markers, *sorted({word for there in words.values() for word in there}))
        block = block.model_copy(update={"missing": block.missing.model_copy(update={"markers": markers})})
        found = look(block)
    if found.refused or not found.task:  # a target that is not there, has no values or does not suit --task
        first = found.refused or f"{files['train']}: the file has no rows"
        faults = [first, *(problem for problem in found.problems if problem != first)]
        told = listed(found.source, list(map(as_option, faults)))
        raise ProjectError(re.sub("--set data.(task|target)=", r"--\1 ", told))
    return View(found, block, gaps, changes)


def written(view: View, places: Mapping[str, str], name: str) -> str:
    """params.yaml, read again by the loader as every command will: part -> path in the project, and the project's name."""
    spec = (TEMPLATE / "params.yaml").read_text(encoding="utf-8")
    spec = spec[spec.index("# One experiment") :]  # the lines before are of this repository
    for key, filled in _filled(view, places, name).items():  # each key's first line is the one that is meant
        indent = filled[: len(filled) - len(filled.lstrip())]
        key_line = rf"^{indent}{key}:.*\n"
        spec = re.sub(key_line, lambda _, filled=filled: filled, spec, count=1, flags=re.MULTILINE)  # type: ignore[misc]
    leaves: dict[tuple[str | int, ...], Any] = {}
    for path, value in view.changes.items():
        leaves.update(_leaves(split_path(path, models_schema()), value))
    leaves.pop(("data", "missing", "markers"), None)  # which are filled in
    spec = edit(spec, leaves) if leaves else spec
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "params.yaml").write_text(spec, encoding="utf-8")
        load(Path(scratch) / "params.yaml")
    return spec


def _leaves(path: tuple[str | int, ...], value: object) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """One value at a time, so that what stands beside it in params.yaml stays."""
    if not isinstance(value, dict):
        yield path, value
        return
    for key, below in value.items():
        yield from _leaves((*path, key), below)


def _filled(view: View, places: Mapping[str, str], name: str) -> dict[str, str]:
    """Key -> the lines that stand for it."""
    parts = ", ".join(f"{part}: {text(place)}" for part, place in places.items())
    source = f"{{{parts}}}" if len(places) > 1 else text(places["train"])
    found, block = view.found, view.block
    repeated = f"; {found.duplicates} rows repeat an earlier one" if found.duplicates else ""
    target = text(block.targets[0]) if len(block.targets) == 1 else flow(block.targets)
    meant = f"{found.task}, by the target's values" if block.task == "auto" else "auto: by the target's values"
    no_value = "texts of a cell that mean no value"
    markers = f"{no_value}; found among the numbers of {', '.join(view.gaps)}" if view.gaps else f"{no_value}, such as NA or ?"
    lines = {
        "source": line(1, "source", source, f"{found.rows} rows, {len(found.columns)} columns{repeated}"),
        "target": line(1, "target", target, _about_target(found)),
        "task": line(1, "task", block.task, f"{meant}; regression, binary, multiclass"),
        "markers": line(2, "markers", flow(block.missing.markers), markers),
        "backend": line(1, "backend", text(backend()), "lightning, keras, reference: the same experiment on each"),
        "experiment": line(1, "experiment", text(name)),
    }
    if found.guessed and block.format.header == "auto":
        lines["header"] = line(2, "header", "false", "the first line was taken for a row")
    columns = "".join(_columns(found))
    if columns:
        kinds = "numeric, categorical, boolean, datetime, ignore"
        head = f"{'  columns:':<{AT - 1}} # {kinds}; a column that is left out is taken as it looks\n"
        lines["columns"] = head + columns
    for key, plain in (("numbers", "1234.5"), ("dates", "2024-05-31")):
        if written := found.written(key):
            head = f"{f'  {key}:':<{AT - 1}} # how they are written, where not as {plain}\n"
            lines[key] = head + "".join(line(2, name, how) for name, how in written.items())
    return lines


def _about_target(found: Look) -> str:
    if found.classes:
        most = [f"{name} {rows}" for name, rows in [*found.classes.items()][:NAMED]]
        more = f", and {len(found.classes) - NAMED} more" if len(found.classes) > NAMED else ""
        return f"{len(found.classes)} classes, rows of each: {', '.join(most)}{more}"
    spread = [_spread(column) for column in found.columns if column.name in found.targets]
    return "; ".join(filter(None, spread))


def _columns(found: Look) -> Iterator[str]:
    """A line a column: what it holds, and what a newcomer would want to know about it."""
    warned = {suspicion.column: suspicion.why for suspicion in found.suspicions}
    few = len(found.columns) <= FIELDS
    for column in found.columns:
        remarkable = column.kind == "ignore" or column.problem or column.name in warned
        if column.name in found.targets or not (few or remarkable):
            continue
        odd = f"fix: it holds {', '.join(map(repr, column.odd[:NAMED]))} too" if column.problem and column.odd else ""
        missing = f"{column.missing} missing" if column.missing and column.kind != "ignore" else ""
        notes = [odd, column.note, warned.get(column.name, ""), missing, _spread(column)]
        yield line(2, column.name, column.kind, "; ".join(filter(None, notes)))


def _spread(column: ColumnLook) -> str:
    """Its range, or its most frequent values."""
    if column.kind == "ignore":
        return f"such as {column.example}" if column.example else ""
    if column.least is not None and column.greatest is not None:
        return f"{shown(column.kind, column.least)} to {shown(column.kind, column.greatest)}"
    names = [name for name, _ in column.frequent[:NAMED]]
    return f"{column.distinct}: {', '.join(names)}{', ...' if column.distinct > len(names) else ''}"


def backend() -> str:
    """The first beside the reference whose libraries are installed; nothing is imported."""
    known = {"lightning": ("torch", "pytorch_lightning"), "keras": ("keras", "tensorflow"), "keras-jax": ("keras", "jax")}
    return next((name for name, libraries in known.items() if all(map(find_spec, libraries))), "reference")


def line(depth: int, key: str, value: object, comment: str = "") -> str:
    """`key: value  # comment`; the comment without line ends and control characters, and not without end."""
    start = f"{'  ' * depth}{text(key)}: {value}"
    clean = " ".join("".join(c if c.isprintable() else " " for c in comment).split())
    clean = clean if len(clean) <= 100 else f"{clean[:97]}..."
    return f"{start:<{AT - 1}} # {clean}\n" if clean else f"{start}\n"


def flow(values: Iterable[str]) -> str:
    """A list on one line."""
    return f"[{', '.join(json.dumps(value, ensure_ascii=False) for value in values)}]"


# -- git and DVC --


def git_root(folder: Path) -> Path | None:
    """The git repository that a folder lies in, which need not exist yet."""
    return next((above for above in (folder, *folder.parents) if (above / ".git").exists()), None)


def check_git(folder: Path) -> None:
    """Raises ProjectError unless there is a git that can be used in the folder."""
    if shutil.which("git") is None:
        raise ProjectError("git must be installed, for DVC keeps what belongs together by it; found none on PATH")
    root = git_root(folder)
    if root and _run(root, "git", "check-ignore", "--quiet", str(folder / "dvc.yaml")).returncode == 0:
        raise ProjectError(f"{folder} must be a folder that git sees, but {root}/.gitignore leaves it out; choose another")


def init(folder: Path) -> list[str]:
    """Make what is missing; says what was made. Raises ProjectError."""
    made = []
    root = git_root(folder)
    if root is None:
        _checked(_run(folder, "git", "init", "--quiet"), "git init")
        root = folder
        made.append("git")
    inside = [above for above in (folder, *folder.parents) if above.is_relative_to(root)]
    if not any((above / ".dvc").is_dir() for above in inside):
        # `dvc init` stages its files; a person's next commit is theirs.
        index = folder / _run(folder, "git", "rev-parse", "--git-path", "index").stdout.strip()
        staged = index.read_bytes() if index.is_file() else None
        command = children.command("-m", "dvc", "init", "--quiet", *(["--subdir"] if root != folder else []))
        try:
            _checked(_run(folder, *command), "dvc init")
        finally:
            index.unlink(missing_ok=True)
            if staged is not None:
                index.write_bytes(staged)
        (folder / ".dvc/config").write_text(DVC_CONFIG, encoding="utf-8")
        cache = f"[core]\n    site_cache_dir = {private_cache().as_posix()}\n"
        (folder / ".dvc/config.local").write_text(cache, encoding="utf-8")
        made.append("DVC")
    return made


def private_cache() -> Path:
    """A folder for DVC's site cache, its owner's alone: what lies there is unpickled."""
    folder = platformdirs.user_cache_path("deltarule") / "dvc"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")} | {"DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def _checked(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise ProjectError(f"{what} failed with exit code {done.returncode}: {said[-1]}")
