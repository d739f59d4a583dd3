"""A look at data: what is told, what is suspected and what is not, and the page and the command that show it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from html.parser import HTMLParser

import numpy as np
import pytest

from pipelines.cli.data import block_of
from pipelines.data.columns import Column, DataError, Target
from pipelines.data.look import look, shown, suspect
from pipelines.data.parts import prepare
from pipelines.data.read import read
from pipelines.report.pages import data_page
from pipelines.spec import DataSpec, SpecError


@pytest.fixture
def looks(tmp_path):
    """Write t.csv and look at it; without a target unless one is given."""

    def write(text, target=None, **changes):
        (tmp_path / "t.csv").write_text(text)
        block = DataSpec.model_validate({"source": "t.csv", "target": target or "?", **changes})
        return look(block if target else block.model_copy(update={"target": None}), tmp_path)

    return write


def table(**columns):
    names = list(columns)
    return "\n".join([",".join(names), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]) + "\n"


UNTIDY = """id,age,city,member,since,gone,y
u01,31,Köln,yes,2024-01-01,,p
u02,,Bonn,no,2024-01-02,,q
u03,29,Köln,,2024-01-03,,p
u03,29,Köln,,2024-01-03,,p
"""


def test_each_column_is_told_of(looks):
    found = looks(UNTIDY, "y", columns={"id": "ignore"})
    told = {column.name: column for column in found.columns}
    assert (found.source, found.rows, found.targets) == ("t.csv", 4, ("y",))
    assert {name: column.kind for name, column in told.items()} == {
        "id": "ignore", "age": "numeric", "city": "categorical", "member": "boolean", "since": "datetime", "gone": "ignore",
        "y": "categorical",
    }  # fmt: skip
    age, city, since = told["age"], told["city"], told["since"]
    assert (age.missing, age.distinct, age.least, age.median, age.greatest) == (1, 2, 29, 29, 31)
    assert (age.example, age.frequent, age.histogram) == ("31", (("29", 2), ("31", 1)), (("29", 2), ("31", 1)))
    assert (city.missing, city.least, city.frequent, city.example) == (0, None, (("Köln", 3), ("Bonn", 1)), "Köln")
    assert (told["member"].frequent, told["member"].missing) == ((("false", 1), ("true", 1)), 2)
    assert (since.example, shown("datetime", since.greatest)) == ("2024-01-01", "2024-01-03")
    assert (told["id"].stated, told["id"].note, told["gone"].note) == (True, "", "no cell holds a value")
    assert found.duplicates == 1
    json.dumps(asdict(found), allow_nan=False)


def test_classes_are_counted_and_the_task_is_found(looks):
    found = looks(table(a=range(40), y=["p", "q"] * 20), "y")
    assert (found.task, found.classes) == ("binary", {"p": 20, "q": 20})
    assert looks(table(a=range(40), y=np.arange(40) ** 0.5), "y").task == "regression"


def test_without_a_target_or_with_a_wrong_one_the_rest_is_told(looks):
    text = table(a=range(30), b=["x", "y", "z"] * 10)
    assert (looks(text).targets, looks(text).task, looks(text).problems) == ((), "", ())
    wrong = looks(text, "c")
    assert wrong.targets == ()
    assert wrong.problems == ("t.csv: data.target must name columns of the file, got 'c'; the columns are: a, b",)
    assert [column.name for column in wrong.columns] == ["a", "b"]
    (constant,) = looks(table(a=range(3), y=["p"] * 3), "y").problems
    assert "must take more than one value" in constant


def test_a_column_that_would_be_refused_is_told_of_with_the_words_in_it(looks):
    found = looks("a,b\n1,2\nNA,3\n2,3\n?,4\n5,5\nNA,7\n7,8\n")
    a, b = found.columns
    assert (a.kind, a.odd, b.problem) == ("numeric", ("NA", "?"), "")
    assert found.problems == (a.problem,)
    assert a.problem.startswith("t.csv:3: column 'a' must hold numbers or words, found 'NA', as 3 of 7 cells are no numbers")
    assert looks("a,b\n1,2\nNA,3\n2,3\n", missing={"markers": ["NA"]}).problems == ()


def test_a_target_whose_column_would_be_refused_is_told_of_once(looks):
    words = [f"{n}.5" for n in range(30)]
    for cell, what in (("inf", "inf"), ("n/a", "'n/a'")):
        (problem,) = looks(table(a=range(31), y=[*words, cell]), "y").problems
        assert "column 'y' must" in problem and what in problem


def test_what_the_spec_names_wrongly_is_told_apart_from_what_a_column_holds(looks):
    text = "a,b,y\n" + "".join(f"{n},{'NA' if n % 9 == 1 else n},p\n" for n in range(30))
    for target in ("c", "y"):
        found = looks(text, target)
        assert len(found.problems) == 2 and found.refused in found.problems and f"{target!r}" in found.refused
    assert looks(text).refused == ""


def test_a_file_that_is_no_table_is_refused(looks):
    with pytest.raises(DataError, match=r"t\.csv:3: every row must have 2 cells"):
        looks("a,b\n1,2\n3\n")


def test_a_bundled_set_can_be_looked_at():
    found = look(DataSpec(source="iris"))
    assert (found.rows, found.task, found.duplicates, found.suspicions) == (150, "multiclass", 1, ())
    assert not look(DataSpec(source="diabetes")).suspicions
    assert {s.kind for s in look(DataSpec(source="digits")).suspicions} == {"constant"}
    assert not look(DataSpec(source="breast_cancer")).suspicions


def test_bars_hold_every_row_and_have_no_more_than_that(looks):
    rng = np.random.default_rng(0)
    columns = {
        "a": rng.normal(size=500),
        "b": rng.integers(5, size=500),
        "c": [f"w{n % 40}" for n in range(500)],
        "d": rng.uniform(-1, 1, size=500) * 1.7e308,
    }
    found = looks(table(**columns))
    for column in found.columns:
        assert sum(rows for _, rows in column.histogram) == 500
        assert column.median is None or column.median == pytest.approx(np.median(columns[column.name] / 2) * 2)
    assert [len(column.histogram) for column in found.columns] == [24, 5, 13, 24]
    assert found.columns[2].histogram[-1] == ("28 others", 28 * 12 + 8)


def test_values_are_spelled_as_people_write_them():
    assert [shown("numeric", value) for value in (3.0, 0.1, 1e20, 1 / 3)] == ["3", "0.1", "1e+20", "0.333333"]
    assert shown("datetime", 0.5) == "1970-01-01T12:00:00"
    assert (shown("boolean", 1.0), shown("datetime", 1e12)) == ("true", "1e+12")


# Suspicions ------------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(3)
N = 300
Y = RNG.normal(size=N)
CLASSES = RNG.integers(3, size=N)
RARE = (np.arange(N) == 150).astype(int)
WRONG = np.where(np.arange(N) % 33, CLASSES, (CLASSES + 1) % 3)  # in 10 of 300 rows


def answer(y, classes):
    """A target to test columns against."""
    if classes:
        return Target("multiclass", ("y",), tuple(map(str, range(y.max() + 1))), y)
    return Target("regression", ("y",), (), y[:, None])


def asked(values, target, kind="numeric", categories=(), most=400):
    column = Column(np.asarray(values, dtype=np.int32 if categories else np.float64), categories)
    return [(one.kind, one.why) for one in suspect("a", kind, column, target, most)]


REGRESSION = answer(Y, classes=False)
THREE = answer(CLASSES, classes=True)
HITS = {
    "equals": (asked(Y, REGRESSION), "equals the target y"),
    "another unit": (asked(-Y * 1.8 + 32, REGRESSION), "follows the target y: rank correlation -1.0000"),
    "a curve of it": (asked(np.exp(Y), REGRESSION), "follows the target y: rank correlation 1.0000"),
    "equals with gaps": (asked(np.where(np.arange(N) % 5, Y, np.nan), REGRESSION), "equals the target y"),
    "a code of the class": (asked(CLASSES[::1] * 7.0, THREE), "its 3 values tell the target y in 100.0% of the rows"),
    "a category of the class": (
        asked(CLASSES, THREE, "categorical", ("p", "q", "r")), "its 3 values tell the target y in 100.0% of the rows",
    ),
    "a range a class": (asked((CLASSES * 5 % 3) * 10 + Y, THREE), "split into a range a class it tells the target y"),
    "a gap a class": (
        asked(np.where(CLASSES > 0, Y, np.nan), answer((CLASSES > 0).astype(int), classes=True)),
        "whether it has a value tells the target y",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HITS)
def test_a_column_that_tells_the_target_is_a_suspected_leak(case):
    found, why = HITS[case]
    assert [kind for kind, _ in found] == ["leak"]
    assert found[0][1].startswith(why)


MISSES = {
    "a good predictor": asked(Y + RNG.normal(size=N) * 0.1, REGRESSION),
    "noise": asked(RNG.normal(size=N), THREE),
    "a category a row": asked(np.arange(N), THREE, "categorical", tuple(f"{n:03}" for n in range(N))),
    "overlapping ranges": asked(CLASSES * 3 + Y, THREE),
    "noise beside a rare class": asked(RNG.normal(size=N), answer(RARE, classes=True)),
    "a code that is wrong in 3 % of the rows": asked(WRONG, THREE, "categorical", ("p", "q", "r")),
    "few rows": asked(Y[:9], answer(Y[:9], classes=False)),
    "few rows, all different": asked(RNG.normal(size=30), answer(CLASSES[:30], classes=True)),
    "few rows, a category each": asked(
        np.arange(30), answer(CLASSES[:30], classes=True), "categorical", tuple(map(chr, range(97, 127)))
    ),
    "few rows, most of them twice": asked(np.repeat(RNG.permutation(20), 2), answer(CLASSES[:40], classes=True)),
    "ignored": asked(CLASSES, THREE, "ignore", ("p", "q", "r")),
}


@pytest.mark.parametrize("case", MISSES)
def test_a_column_that_only_helps_is_not_suspected(case):
    assert MISSES[case] == []


def test_a_column_that_numbers_the_rows_is_suspected():
    assert [kind for kind, _ in asked(np.arange(N), THREE)] == ["order"]
    assert [kind for kind, _ in asked(RNG.permutation(N) + 1000, THREE)] == ["order"]
    assert [kind for kind, _ in asked(np.cumsum(RNG.integers(1, 99, size=N)), THREE)] == ["order"]
    assert asked(RNG.integers(100, size=N), THREE) == []
    assert asked(RNG.permutation(N) * 1000, THREE) == []  # an amount
    assert asked(np.arange(N) + 0.5, THREE) == []


def test_an_id_that_orders_the_target_is_suspected_twice():
    kinds = [kind for kind, _ in asked(np.arange(N), answer(np.sort(CLASSES), classes=True))]
    assert kinds == ["order", "leak"]


def test_a_constant_column_is_suspected_of_saying_nothing():
    assert asked(np.full(N, 4.0), THREE) == [("constant", "the same value in every row")]
    assert asked(np.where(np.arange(N) % 2, 4.0, np.nan), THREE) == []


def test_categories_too_many_for_an_input_each_are_told_of():
    names = tuple(f"c{n:05}" for n in range(50_000))
    [(kind, why)] = asked(np.arange(100_000) // 2, answer(np.arange(100_000) % 2, classes=True), "categorical", names, 50)
    assert kind == "many" and why.startswith(
        "50,000 categories, of which the 50 most frequent have an input each; 99.9% of the rows have another"
    )
    few_rare = np.append(np.repeat(np.arange(50), 20), np.arange(50, 60))
    assert asked(few_rare, answer(RNG.integers(3, size=1010), classes=True), "categorical", names[:60], 50) == []


def test_spellings_of_one_category_or_class_are_told_of(looks):
    rows = {"a": ["red", "Red ", "blue"] * 20, "b": range(60), "y": ["yes", "no", "Yes", "no"] * 15}
    found = {one.column: (one.kind, one.why) for one in looks(table(**rows), "y").suspicions if one.kind == "spelling"}
    assert found == {
        "a": ("spelling", "are 'red' and 'Red' one? if so, set data.spellings: {a: {red: Red}}"),
        "y": ("spelling", "are 'yes' and 'Yes' one? if so, set data.spellings: {y: {yes: Yes}}"),
    }


# What split would refuse -----------------------------------------------------------------------------------------------

UNSPLIT = {
    "a class too small to be shared out": ({"y": ["p"] * 29 + ["q"]}, {}, "each class must have at least 3 different rows"),
    "a class that may be a spelling": ({"y": ["yes"] * 29 + ["Yes"]}, {}, "class 'Yes' has 1 (another spelling of 'yes'?)"),
    "fewer rows than folds": ({"y": np.arange(30) / 4}, {"split": {"folds": 40}}, "each of the 40 parts needs a row"),
    "one group": ({"y": ["p", "q"] * 15, "g": ["k"] * 30}, {"split": {"group": "g"}}, "each of the 3 parts needs a row"),
    "a gap among the times": (
        {"y": ["p", "q"] * 15, "t": ["", *range(29)]}, {"split": {"time": "t"}}, "t.csv:2: column 't' must have a value in every",
    ),
    "a time and no other column": ({"y": ["p", "q"] * 15}, {"split": {"time": "a"}}, "there must be a column to predict from"),
    "a gap where none may be": (
        {"y": ["p", "q"] * 15, "b": ["", *range(29)]}, {"missing": {"numeric": "refuse"}}, "t.csv:2: column 'b' must have a",
    ),
    "a number beyond float32": ({"y": ["p", "q"] * 15, "b": [*range(29), "1e39"]}, {}, "t.csv:31: column 'b' must lie within"),
    "a target beyond float32": ({"y": [*range(29), "1e39"]}, {}, "t.csv:31: target 'y' must lie within"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSPLIT)
def test_a_look_says_what_split_would_refuse(looks, tmp_path, case):
    columns, changes, message = UNSPLIT[case]
    text = table(a=np.arange(30), **columns)
    (problem,) = looks(text, "y", **changes).problems
    assert message in problem
    block = DataSpec.model_validate({"source": "t.csv", "target": "y", **changes})
    with pytest.raises(DataError) as refused:
        prepare(read(block, tmp_path), block, tmp_path / "data")
    if "beyond float32" not in case:  # which split names after scaling, if need be
        assert str(refused.value) == problem


def test_columns_that_say_who_is_in_which_part_are_told_of_and_not_suspected(looks):
    text = table(a=RNG.normal(size=40), t=np.arange(40), y=["p", "q"] * 20)
    assert [one.kind for one in looks(text, "y").suspicions] == ["order"]
    found = looks(text, "y", split={"time": "t"})
    assert (found.suspicions, found.columns[1].note) == ((), "no input: it orders the rows (data.split.time)")


def test_of_many_rows_some_are_looked_at(monkeypatch):
    monkeypatch.setattr("pipelines.data.look.ROWS", 50)
    assert [kind for kind, _ in asked(Y, REGRESSION)] == ["leak"]


# The page and the command ----------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Whether every tag is closed, and what is fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes = [], []

    def handle_starttag(self, tag, attributes):
        self.attributes += attributes
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page(found):
    text = data_page(json.loads(json.dumps(asdict(found))), shown)
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert not [value for name, value in tags.attributes if name in ("src", "href")]
    assert "<script" not in text and "url(" not in text
    return text


def test_the_page_shows_every_column_and_escapes_what_the_file_says(looks):
    text = page(looks('<b>,y\n"<script>alert(1)</script>",1\nx,2\nx,3\n', "y"))
    assert "&lt;b&gt;" in text and "&lt;script&gt;" in text
    assert len(re.findall('class="card[ "]', text)) == 2
    assert text == page(looks('<b>,y\n"<script>alert(1)</script>",1\nx,2\nx,3\n', "y"))


def test_the_page_begins_with_what_is_wrong_and_holds_fifty_columns(looks):
    columns = {f"c{n}": RNG.normal(size=30) for n in range(50)}
    text = page(looks(table(**columns, y=["p"] * 30, same=[1] * 30), "y"))
    assert text.count("<svg") == 52
    assert text.index("What must be changed") < text.index("What is suspicious") < text.index("<h2>Columns")
    assert len(re.findall('<rect class="bar"', text)) <= 50 * 24 + 2
    assert page(looks(UNTIDY)).count('class="card ignored"') == 1


def test_the_command_shows_a_file_without_a_spec(deltarule, tmp_path):
    (tmp_path / "t.csv").write_text(UNTIDY, encoding="latin-1")
    refused = deltarule("data", "--file", "t.csv", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "t.csv:2: the text must be UTF-8, found 0xf6" in refused.stderr
    assert refused.stderr.rstrip().endswith("; give it as --set data.format.encoding=latin-1")
    options = ("--file", "t.csv", "--target", "y", "--set", "data.format.encoding=latin-1")
    done = deltarule("data", *options, "--html", "pages/look.html", "--json", check=False)
    assert json.loads(done.stdout)["classes"] == {"p": 3, "q": 1}
    assert "Data: t.csv" in (tmp_path / "pages" / "look.html").read_text(encoding="utf-8")
    shown = deltarule("data", *options, check=False)
    told = shown.stdout
    assert (done.returncode, shown.returncode) == (2, 2)
    assert "error: t.csv: each class must have at least 3 different rows" in told
    assert shown.stderr == "t.csv: 1 error in the data, see above; fix it, then split\n"
    assert "t.csv: 4 rows, 7 columns" in told
    assert re.search(r"^age +numeric +1 \(25.0%\) +2 +29, 29, 31$", told, re.MULTILINE)
    assert "duplicates, rows that repeat an earlier one: 1" in told


def test_the_command_takes_the_specs_data_or_a_files(tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text("data: {source: iris}\n")
    assert block_of(params, [], None, None).source == "iris"
    block = block_of(tmp_path / "none.yaml", ["data.missing.markers=['', NA]"], "t.csv", ["u", "v"])
    assert (block.source, block.target, block.missing.markers) == ("t.csv", ("u", "v"), ("", "NA"))
    assert block_of(params, [], "t.csv", None).target is None
    assert block_of(params, [], "openml:61", None).sha256 is None
    for change in ("data.colums={}", "data", "data.format.decimal=dot"):
        with pytest.raises(SpecError):
            block_of(params, [change], "t.csv", None)
