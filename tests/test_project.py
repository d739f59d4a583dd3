"""What `deltarule new` writes, and what it refuses: all of it or nothing, and nothing is overwritten."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pyarrow
import pytest
from conftest import ROOT, call
from pyarrow import parquet
from ruamel.yaml import YAML

from pipelines.data import DataError
from pipelines.new import TEMPLATE, ProjectError, create
from pipelines.spec import SpecError, identity, load

PARAMS = (ROOT / "params.yaml").read_text().partition("$schema=docs/params.schema.json\n#\n")[2]
ROWS = ["a,b,kind", *(f"{i % 7},{i * i % 11},{('rose', 'iris')[i % 2]}" for i in range(40))]


@pytest.fixture
def data(tmp_path) -> Path:
    (tmp_path / "rows.csv").write_text("\n".join(ROWS) + "\n")
    return tmp_path / "rows.csv"


def files(folder: Path) -> dict[str, bytes]:
    """All files below, but for those of git and DVC."""
    found = [path for path in folder.rglob("*") if path.is_file() and not {".git", ".dvc"} & set(path.parts)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_project_has_its_data_and_what_says_how(data, tmp_path):
    made = create(tmp_path / "mine", data, ["kind"])
    assert set(files(made.folder)) == {
        "params.yaml", "code.yaml", "dvc.yaml", "studies/dvc.yaml", ".dvcignore", ".gitignore", "README.md", "data/rows.csv"
    }  # fmt: skip
    assert made.initialised == ["git", "DVC"]
    spec = load(made.folder / "params.yaml")
    assert spec.data.source == "data/rows.csv" and spec.data.target == "kind" and spec.tracking.experiment == "mine"
    assert len((made.folder / "README.md").read_text().splitlines()) <= 20


def test_data_that_lies_in_the_project_stays_where_it_is(tmp_path, data):
    (tmp_path / "mine/raw").mkdir(parents=True)
    inside = data.rename(tmp_path / "mine/raw/rows.csv")
    made = create(tmp_path / "mine", inside, ["kind"])
    assert made.source == "raw/rows.csv" and "data/rows.csv" not in files(made.folder)


@pytest.mark.parametrize("names", [["params.yaml"], ["dvc.yaml", "studies/dvc.yaml"], ["data/rows.csv"]])
def test_nothing_is_overwritten_and_all_that_is_in_the_way_is_named(data, tmp_path, names):
    for name in names:
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text("of my own")
    before = files(tmp_path / "mine")
    with pytest.raises(ProjectError, match=", ".join(map(re.escape, names))):
        create(tmp_path / "mine", data, ["kind"])
    assert files(tmp_path / "mine") == before and not (tmp_path / "mine/.git").exists()


def test_a_repository_of_ones_own_keeps_what_it_has(data, tmp_path, deltarule):
    """`new .` where README.md and .gitignore are, one of them changed and staged: nothing else is staged, nothing lost."""
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, text in ((".gitignore", "*.tmp\n.venv"), ("README.md", "of my own\n"), ("notes.txt", "one\n")):
        (mine / name).write_text(text)
    call("git", "init", "--quiet", cwd=mine)
    call("git", "add", "notes.txt", cwd=mine)
    said = deltarule("new", ".", "--data", "../rows.csv", "--target", "kind", cwd=mine).stdout.splitlines()
    assert said == [
        "mine: a project that predicts kind from data/rows.csv; initialised DVC",
        ".gitignore exists: added 11 lines at its end",
        "README.md exists: left as it is",
        "look at params.yaml, then: dvc repro",
    ]
    ignored = (mine / ".gitignore").read_text()
    assert ignored.startswith("*.tmp\n.venv\n# of deltarule\n__pycache__/\n/outputs/*\n") and ignored.count(".venv") == 1
    assert (mine / "README.md").read_text() == "of my own\n"
    assert call("git", "status", "--short", "--untracked-files=no", cwd=mine).stdout == "A  notes.txt\n"
    assert (mine / ".dvc/config").is_file() and (mine / ".dvcignore").read_text() == (TEMPLATE / "dvcignore").read_text()


def test_what_fails_gives_back_a_file_that_lines_were_added_to(data, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/.gitignore").write_text("*.tmp")

    def fails(folder: Path) -> list[str]:
        assert "/outputs/*" in (folder / ".gitignore").read_text()
        raise ProjectError("the disk is full")

    monkeypatch.setattr("pipelines.new.init", fails)
    with pytest.raises(ProjectError, match="full"):
        create(tmp_path / "mine", data, ["kind"])
    assert files(tmp_path / "mine") == {".gitignore": b"*.tmp"}


def test_a_class_too_small_to_be_shared_out_is_told_of_and_the_project_is_made(tmp_path):
    (tmp_path / "rows.csv").write_text("a,y\n" + "".join(f"{n},{'Yes' if n % 2 else 'No'}\n" for n in range(40)) + "77,yes\n")
    made = create(tmp_path / "mine", tmp_path / "rows.csv", ["y"])
    [problem] = made.found.problems
    assert "class 'yes' has 1 (another spelling of 'Yes'?); add rows" in problem
    suspected = ["order: a: whole", "spelling: y: are 'yes' and 'Yes' one?"]
    assert [one[: len(known)] for one, known in zip(sorted(map(str, made.found.suspicions)), suspected, strict=True)] == suspected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": Path("nowhere.csv")}, "--data must name a file, found nothing at nowhere.csv"),
        ({"test": Path("nowhere.csv")}, "--test must name a file, found nothing at nowhere.csv"),
        ({"target": ["kid"]}, "kid"),
        ({"task": "regression"}, "regression"),
    ],
)
def test_data_that_cannot_be_used_is_one_error_and_nothing_is_written(data, tmp_path, change, message):
    with pytest.raises((ProjectError, DataError), match=message):
        create(tmp_path / "mine", **{"data": data, "target": ["kind"], **change})
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": ["kid"]}, "data.target must name columns of the file, got 'kid'"),
        ({"task": "regression"}, "target 'kind' must hold numbers for regression"),
        ({"target": ["same"]}, "target 'same' must take more than one value"),
        ({"target": ["b"]}, "target 'b' must have a value in every row"),
    ],
)
def test_a_wrong_target_is_named_although_a_column_is_untidy(tmp_path, change, message):
    rows = ["a,b,same,kind", *(f"{'?' if i % 9 == 1 else i},{'NA' if i % 9 == 2 else i},1,{'pq'[i % 2]}" for i in range(40))]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(ProjectError, match=message):
        create(tmp_path / "mine", **{"data": tmp_path / "rows.csv", "target": ["kind"], **change})


def test_data_of_another_ending_is_one_error_of_the_option(tmp_path, deltarule):
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    done = deltarule("new", "mine", "--data", "rows.xlsx", "--target", "y", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "--data must name a file that ends in .csv, .tsv, .txt, .csv.gz, .tsv.gz, .txt.gz, .parquet, got rows.xlsx; save the "
        "sheet as CSV first\n"
    )


LATIN = "größe,id_a,y\n" + "".join(f'"{n},5",{n % 3}{n},{"äö"[n % 2]}\n' for n in range(40))


def test_what_is_set_is_how_the_file_is_read_and_stands_in_the_spec_beside_its_comments(tmp_path, deltarule):
    (tmp_path / "l1.csv").write_text(LATIN, encoding="latin-1")
    args = ("new", "mine", "--data", "l1.csv", "--target", "y")
    refused = deltarule(*args, check=False)
    assert refused.returncode == 2 and refused.stderr.rstrip().endswith("; give it as --set data.format.encoding=latin-1")
    deltarule(
        *args, "--set", "data.format.encoding=latin-1", "--set", "data.format.decimal=comma", "--set", "data.columns.id_*=ignore",
        "--set", "data.spellings={y: {ä: ae}}", "--set", "data.missing={markers: [none], numeric: 0}",
    )  # fmt: skip
    text = (tmp_path / "mine/params.yaml").read_text()
    assert "    encoding: latin-1         # utf-8, utf-16, latin-1, ...\n    header: auto " in text
    assert "classes, rows of each: ae 20, ö 20" in text and "0.5 to 39.5" in text
    spec = load(tmp_path / "mine/params.yaml").data
    assert (spec.format.encoding, spec.format.decimal, spec.format.quote) == ("latin-1", "comma", "double")
    assert spec.columns == {"größe": "numeric", "id_a": "ignore", "id_*": "ignore"}
    assert (spec.spellings, spec.missing.markers, spec.missing.numeric) == ({"y": {"ä": "ae"}}, ("none",), 0)
    filled = ("source:", "target:", "task:", "columns:", "markers:", "backend:", "experiment:")
    ours = [line for line in PARAMS.splitlines() if not line.strip().startswith(filled)]
    assert [comment for line in ours for comment in re.findall("# .*", line) if comment not in text] == []


def test_markers_that_are_set_stand_beside_those_that_are_found(tmp_path):
    rows = ["a,b,y", *(f"{'gap' if i % 9 == 1 else i},{'NA' if i % 9 == 2 else i},{'pq'[i % 2]}" for i in range(40))]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    made = create(tmp_path / "mine", tmp_path / "rows.csv", ["y"], changes={"data.missing.markers": ["", "gap"]})
    assert load(made.folder / "params.yaml").data.missing.markers == ("", "gap", "NA")
    assert made.found.problems == ()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.dropout", 0.3, "--set model.dropout: must be a path below data"),
        ("data", {}, "--set data: must be a path below data"),
        ("data.target", "a", "--set data.target: must be given as --target"),
        ("data.source", "x.csv", "--set data.source: must be given as --data"),
        ("data.format.decimal", "dot", "data.format.decimal must be"),
        ("data.format.encodin", "latin-1", "did you mean encoding"),
        ("data.split.group", "patient", "data.split.group must name a column of the file, got 'patient'"),
    ],
)
def test_what_cannot_be_set_is_one_error_and_nothing_is_written(data, tmp_path, path, value, message):
    with pytest.raises((ProjectError, SpecError), match=message) as refused:
        create(tmp_path / "mine", data, ["kind"], changes={path: value})
    assert "\n" not in str(refused.value) and not (tmp_path / "mine").exists()


def test_an_error_of_a_new_project_says_which_option_helps(tmp_path, data):
    (tmp_path / "mixed.csv").write_text("a,y z\n" + "".join(f"{n},{n}.5\n" for n in range(40)) + "7,x\n")
    with pytest.raises(ProjectError, match=r"; give it as --set 'data\.columns\.y z=categorical'$"):
        create(tmp_path / "mine", tmp_path / "mixed.csv", ["y z"])
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("a,y\n" + "".join(f"{n},{n}.5\n" for n in range(40)))
    with pytest.raises(ProjectError, match=r"; give it as --task regression$"):
        create(tmp_path / "mine", numbers, ["y"], "multiclass")


def test_what_fails_on_the_way_leaves_nothing(data, tmp_path, monkeypatch):
    (tmp_path / "outer/mine").mkdir(parents=True)
    (tmp_path / "outer/mine/notes.txt").write_text("of my own")
    monkeypatch.setattr("pipelines.new.backend", lambda: "reference")

    def fails(folder: Path) -> list[str]:
        call("git", "init", "--quiet", cwd=folder)
        raise ProjectError("the disk is full")

    monkeypatch.setattr("pipelines.new.init", fails)
    with pytest.raises(ProjectError, match="full"):
        create(tmp_path / "outer/mine", data, ["kind"])
    assert [path.name for path in (tmp_path / "outer/mine").iterdir()] == ["notes.txt"]
    with pytest.raises(ProjectError, match="full"):
        create(tmp_path / "outer/new/inner", data, ["kind"])
    assert not (tmp_path / "outer/new").exists()


def test_in_a_git_repository_dvc_keeps_to_the_folder(data, tmp_path):
    call("git", "init", "--quiet", cwd=tmp_path)
    made = create(tmp_path / "mine", data, ["kind"])
    assert made.initialised == ["DVC"] and (tmp_path / "mine/.dvc").is_dir() and not (tmp_path / "mine/.git").exists()


def test_a_folder_that_git_leaves_out_is_refused(data, tmp_path):
    call("git", "init", "--quiet", cwd=tmp_path)
    (tmp_path / ".gitignore").write_text("mine\n")
    with pytest.raises(ProjectError, match="git sees"):
        create(tmp_path / "mine", data, ["kind"])


ODD = [
    "no", "1", "1e3", "a: b", "a #b", "- a", "'a'", '"a"', "ä ö", "{a}", "[a]", "a, b", "*", "&a", "${a}", "%", "@", "a\\b",
    "true", "~", "a\tb", " a ", "?", "",
]  # fmt: skip


def test_names_of_any_kind_are_read_as_they_were_written(tmp_path):
    names, markers = [*ODD, "Größe: no"], ["", "N/A", 'ä"']
    rows = tmp_path / "my rows, #1.parquet"
    parquet.write_table(pyarrow.table({name: [*range(5)] * 8 if name in ODD else [*"pq"] * 20 for name in names}), rows)
    made = create(tmp_path / "a: b", rows, ["Größe: no"], changes={"data.missing.markers": markers})
    spec = load(made.folder / "params.yaml")
    assert list(spec.data.columns) == ODD and spec.data.target == "Größe: no"
    assert list(spec.data.missing.markers) == markers
    assert (spec.data.source, spec.tracking.experiment) == ("data/my rows, #1.parquet", "a: b")


# -- what is written agrees with this repository's own -----------------------------------------------------------------------


def test_params_is_this_repositorys_own_but_for_what_is_filled_in(data, tmp_path):
    written = (create(tmp_path / "mine", data, ["kind"]).folder / "params.yaml").read_text()
    made, ours = ([line.partition(" # ")[0].strip() for line in text.splitlines()] for text in (written, PARAMS))
    assert [line for line in ours if line not in made] == [
        "source: digits",
        "target: null",
        "columns: {}",
        "experiment: deltarule",
    ]
    added = ["source: data/rows.csv", "target: kind", "columns:", "a: numeric", "b: numeric", "experiment: mine"]
    assert [line for line in made if line not in ours] == added


def test_the_pipeline_is_this_repositorys_with_hashes_in_place_of_its_sources():
    written = (TEMPLATE / "dvc.yaml").read_text() + (TEMPLATE / "plots_of_classes.yaml").read_text()
    ours, theirs = (YAML(typ="safe").load(text) for text in ((ROOT / "dvc.yaml").read_text(), written))
    assert (theirs["metrics"], theirs["plots"]) == (ours["metrics"], ours["plots"])
    assert list(theirs["stages"]) == list(ours["stages"])
    for name, stage in theirs["stages"].items():
        assert stage == expected(name, ours["stages"][name])


def test_the_search_is_this_repositorys_with_hashes_in_place_of_its_sources():
    ours, theirs = (YAML(typ="safe").load(path) for path in (ROOT / "studies/dvc.yaml", TEMPLATE / "studies.yaml"))
    assert theirs["stages"]["search"] == expected("search", ours["stages"]["search"])


def expected(name: str, ours: dict) -> dict:
    """A stage of this repository as a project elsewhere has it; its sources are those that are hashed."""
    sources = {dep for dep in ours["deps"] if dep.startswith(("backends/", "pipelines/"))}
    assert sources == {dep.replace("{backend}", "backends/${train.backend}") for dep in identity.SOURCES.get(name, ())}
    deps = [{"data": "${data.source}"}.get(dep, dep) for dep in ours["deps"] if dep not in sources]
    return {
        **ours,
        "cmd": ours["cmd"].replace("${deltarule}", "deltarule"),
        "deps": deps,
        "params": ours.get("params", []) + ([{"code.yaml": [name]}] if sources else []),
    }


def test_each_direct_dependency_has_its_licence_in_the_docs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [names for of, names in project["optional-dependencies"].items() if of not in ("all", "dev")]
    direct = {re.match(r"[\w.-]+", name)[0] for names in (project["dependencies"], *optional) for name in names}
    listed = re.findall(r"^\| ([\w.-]+) \| [^|]+ \|$", (ROOT / "docs/security.md").read_text(), re.MULTILINE)
    assert sorted(direct) == sorted(set(listed) - {"---"}) and len(listed) == len(direct) + 1
