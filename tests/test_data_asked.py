"""What a table holds and nothing reads is asked about, in lines that can be pasted."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pandas
import pytest

from pipelines.data.look import look
from pipelines.data.parts import prepare
from pipelines.data.read import read
from pipelines.data.rows import given
from pipelines.new import ProjectError, view
from pipelines.spec import Experiment, SpecError
from pipelines.spec.file import as_option, values_of

RNG = np.random.default_rng(7)
N = 120


@pytest.fixture
def write(tmp_path):
    """Write t.csv: the cells of `v` beside a number and a target."""

    def write(cells, y=None, name="v"):
        y = [f"{n % 7 + n / 8}" for n in range(len(cells))] if y is None else y
        rows = (f'"{cell}",{n % 11 / 4},{answer}\n' for n, (cell, answer) in enumerate(zip(cells, y, strict=True)))
        (tmp_path / "t.csv").write_text(f"{name},b,y\n" + "".join(rows))
        return tmp_path

    return write


def block_of(*options, source="t.csv", target="y"):
    return Experiment().override({"data.source": source, "data.target": target, **values_of(options)}).data


def options_of(told):
    """Each advice in a message, as the values of its options."""
    ways = as_option(told).rpartition("; give it as ")[2].split(", or ")
    return [[word for word in shlex.split(way) if word != "--set"] for way in ways]


def only(base, *options):
    (problem,) = look(block_of(*options), base).problems
    return problem


def restated(base):
    """What is read where the spec says how `v` was read, as `new` writes it."""
    (reading,) = look(block_of(), base).readings
    key, _, how = reading.partition("is read by ")[2].partition(": ")
    return read(block_of(f"{key}={how}"), base).fetch("v").values


def amounts(low=1, high=99):
    return [f"{value:.2f}" for value in RNG.uniform(low, high, N)]


READ_NUMBERS = {
    "A$1,474.17": ([f"A${n},{n:03}.17" for n in range(1, N)], 1001.17),
    "US $1,200": ([f"US ${n},200" for n in range(1, N)], 1200),
    "Rs. 1,200": ([f"Rs. {n},200" for n in range(1, N)], 1200),
    "~55.1": ([f"~{n}.1" for n in range(1, N)], 1.1),
}


@pytest.mark.parametrize("cell", READ_NUMBERS)
def test_amounts_with_a_sign_before_them_are_read(cell, write):
    cells, first = READ_NUMBERS[cell]
    base = write(cells)
    source = read(block_of(), base)
    assert (source.kinds["v"], source.fetch("v").values[0]) == ("numeric", first)
    preprocessing = prepare(source, block_of(), base / "out").preprocessing
    assert given({"v": cells[:1], "b": [1]}, block_of(), preprocessing).fetch("v").values.tolist() == [first]
    assert restated(base).tolist() == source.fetch("v").values.tolist()


UNREAD = {
    "thousands": [f"${value}k" for value in amounts()],
    "two units": [f"{value} {('lb', 'kg')[n % 2]}" for n, value in enumerate(amounts())],
    "pressure": [f"{n % 60 + 90}/{n % 37 + 60}" for n in range(N)],
    "hours": [f"{n % 23}h {n % 59}m" for n in range(N)],
    "some kg": [f"{value}{(' kg', '')[n % 2]}" for n, value in enumerate(amounts())],
    "few kg": [f"{value}{('', '', ' kg')[n % 3]}" for n, value in enumerate(amounts())],
    "words before": [f"approx {value}" for value in amounts()],
    "codes and thousands": [f"USD {value}{'kM'[n % 2]}" for n, value in enumerate(amounts())],
    "ranges": [f"${n}K-${n + 9}K" for n in range(N)],
}


@pytest.mark.parametrize("case", UNREAD)
def test_amounts_that_are_not_read_are_asked_about_and_each_line_that_is_printed_works(case, write):
    base = write(UNREAD[case])
    problem = only(base)
    assert re.match(r"t\.csv:\d+: column 'v' must hold numbers or words, found '", problem)
    assert "look like amounts that are not read" in problem
    ways = options_of(problem)
    kinds = [read(block_of(*way), base).kinds["v"] for way in ways]
    assert kinds[-2:] == ["ignore", "categorical"]
    assert kinds[:-2] == (["numeric"] if case in ("some kg", "few kg", "words before") else [])
    assert not any(look(block_of(*way), base).problems for way in ways)
    stated = only(base, "data.columns.v=numeric")  # as `new` writes it
    assert options_of(stated) == ways


def test_a_target_of_amounts_that_are_not_read_is_asked_about(write):
    base = write(range(N), UNREAD["pressure"])
    assert "look like amounts that are not read" in only(base)
    assert options_of(only(base)) == [["data.columns.y=categorical"]]


NO_AMOUNTS = {
    "codes": [f"u{n:03}" for n in range(N)],
    "phones": [f"(555) {n:03}-4567" for n in range(N)],
    "addresses": [f"{n} {'ABCDEFGHIJ'[n % 10]}lm Street" for n in range(N)],
    "seats": [f"{n % 30}{'ABCDEF'[n % 6]}" for n in range(N)],
    "invoices": [f"2019-INV-{n}" for n in range(N)],
    "files": [f"2019/{n:04}" for n in range(N)],
    "networks": [f"10.0.{n}.{n + 1}" for n in range(N)],
    "ages": ["18-24", "25-34", "35-44", "45-54"] * 30,
    "tickets": [f"{('', 'PC ', 'A/5 ', 'STON/O2. ')[n % 4]}{n + 2000}" for n in range(N)],
    "few": ["1st", "2nd", "3rd"] * 40,
    "sentences": [f"{n} works well, {'abcdefghij'[n % 10] * 3}" for n in range(N)],
}


@pytest.mark.parametrize("case", NO_AMOUNTS)
def test_codes_addresses_and_few_categories_are_not_asked_about(case, write):
    assert not look(block_of(), write(NO_AMOUNTS[case])).problems


# Dates -----------------------------------------------------------------------------------------------------------------

DAYS = pandas.date_range("2013-01-26 08:44", periods=N, freq="41D")
GERMAN = ["Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "Sept", "Oktober", "November", "Dez"]


def written(form):
    return [day.strftime(form) for day in DAYS]


def ordinal(day):
    return {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}.get(day, "th")


READ_DATES = {
    "2013-Jan-26": written("%Y-%b-%d"),
    "January 26th, 2013": [f"{day:%B} {day.day}{ordinal(day.day)}, {day.year}" for day in DAYS],
    "26. Januar 2013": [f"{day.day}. {GERMAN[day.month - 1]} {day.year}" for day in DAYS],
    "RFC 2822": written("%a, %d %b %Y %H:%M:%S +0000"),
    "20130126T084400": written("%Y%m%dT%H%M%S"),
    "26.01.2013 08:44 Uhr": written("%d.%m.%Y %H:%M Uhr"),
    "3 Sept 2013": [f"{day:%d %b %Y}".replace("Sep", "Sept") for day in DAYS],
}


@pytest.mark.parametrize("form", READ_DATES)
def test_dates_with_words_and_endings_are_read_as_they_will_be_later(form, write):
    base = write(READ_DATES[form])
    source = read(block_of(), base)
    times = (DAYS - pandas.Timestamp(0)).total_seconds() / 86400
    expected = times if ":" in form or "T08" in form or form == "RFC 2822" or "Uhr" in form else np.floor(times)
    assert source.kinds["v"] == "datetime"
    assert source.fetch("v").values == pytest.approx(expected)
    preprocessing = prepare(source, block_of(), base / "out").preprocessing
    later = given({"v": READ_DATES[form][3:4], "b": [1]}, block_of(), preprocessing)
    assert later.fetch("v").values == pytest.approx(expected[3:4])
    assert (restated(base) == source.fetch("v").values).all()


def test_an_hour_alone_is_a_time(write):
    base = write([f"{n % 12 + 1} {('AM', 'PM')[n % 2]}" for n in range(N)])
    assert read(block_of(), base).fetch("v").values[:2] == pytest.approx([1 / 24, 14 / 24])


UNREAD_DATES = {
    "13-Jan": (written("%d-%b"), 2),
    "2013-W04": (written("%Y-W%V"), 0),
    "26 janvier 2013": ([f"{day.day} {'janvier' if day.month < 6 else 'juillet'} {day.year}" for day in DAYS], 0),
    "2013-01-26 morning": (written("%Y-%m-%d morning"), 0),
    "26JAN2013:08:44": (written("%d%b%Y:%H:%M"), 0),
    "20130126": (written("%Y%m%d"), 1),
    "20130126084400": (written("%Y%m%d%H%M%S"), 1),
    "20131101": ([str(20131101 + n % 30) for n in range(N)], 1),
}


@pytest.mark.parametrize("form", UNREAD_DATES)
def test_dates_that_are_not_read_are_asked_about_and_each_line_that_is_printed_works(form, write):
    cells, formats = UNREAD_DATES[form]
    base = write(cells)
    problem = only(base)
    assert "column 'v' must hold" in problem and "look like dates that are not read" in problem
    ways = options_of(problem)
    kinds = [read(block_of(*way), base).kinds["v"] for way in ways]
    assert kinds == [*["datetime"] * formats, "ignore", "numeric" if form.isdigit() else "categorical"]
    assert not any(look(block_of(*way), base).problems for way in ways)
    assert options_of(only(base, "data.columns.v=datetime")) == ways


def test_whole_numbers_that_look_like_dates_are_asked_about_in_parquet_too(tmp_path):
    days = [int(day) for day in written("%Y%m%d")]
    pandas.DataFrame({"v": days, "w": [float("nan"), *days[1:]], "y": np.arange(N) / 3}).to_parquet(tmp_path / "t.parquet")
    block = block_of(source="t.parquet")
    assert len(look(block, tmp_path).problems) == 2
    stated = block_of('data.dates={v: {format: "%Y%m%d"}, w: {format: "%Y%m%d"}}', source="t.parquet")
    source = read(stated, tmp_path)
    preprocessing = prepare(source, stated, tmp_path / "out").preprocessing
    later = given({"v": days[:2], "w": [days[0], None]}, stated, preprocessing)
    assert later.fetch("v").values[0] == later.fetch("w").values[0] == source.fetch("v").values[0]


# Numbers and dates that mean no value ------------------------------------------------------------------------------------

BELL = np.random.default_rng(3).normal(size=400)


def suspected(block, base):
    return [(one.column, one.why) for one in look(block, base).suspicions if one.kind == "sentinel"]


NO_VALUE = {
    "-200": (10 * BELL, "-200"),
    "99.99": (30 + 8 * BELL, "99.99"),
    "-999": (10 * BELL, "-999"),
    "365243": (np.round(-9000 + 2000 * BELL), "365243"),
    "0": (np.round(29 + 8 * BELL.clip(-2.7)), "0"),
    "0.0": (np.round(72 + 12 * BELL), "0.0"),
}


@pytest.mark.parametrize("case", NO_VALUE)
@pytest.mark.parametrize("column", ["v", "y"])
def test_a_number_far_from_the_others_is_suspected_in_inputs_and_target(case, column, write):
    values, sentinel = NO_VALUE[case]
    cells = [*(f"{value:.1f}" for value in values), *[sentinel] * 40]
    other = [f"{n % 97 / 7}" for n in range(440)]
    base = write(cells, other) if column == "v" else write(other, cells)
    ((name, why),) = suspected(block_of(), base)
    assert name == column and why.startswith(f"{float(sentinel):.15g} in 40 rows")
    (options,) = options_of(why)
    found = look(block_of(*options), base)
    assert not found.problems and not suspected(block_of(*options), base)
    if column == "v":
        source = read(block_of(*options), base)
        assert np.isnan(source.fetch("v").values).sum() == 40
        preprocessing = prepare(source, block_of(*options), base / "out").preprocessing
        assert np.isnan(given({"v": [float(sentinel)], "b": [1.0]}, block_of(*options), preprocessing).fetch("v").values[0])
    else:
        assert dict(found.rows_left_out) == {"without a target": 40}


def test_a_second_number_that_means_no_value_does_not_undo_the_first(write):
    base = write([*(f"{value:.1f}" for value in 10 * BELL), *["-200"] * 9, *["-9999"] * 9])
    options = []
    for _ in range(2):
        ((_, why),) = suspected(block_of(*options), base)
        (options,) = options_of(why)
    assert np.isnan(read(block_of(*options), base).fetch("v").values).sum() == 18
    assert not suspected(block_of(*options), base)


PLACEHOLDERS = {
    "01/01/1900": [f"{day:%d/%m/%Y}" for day in DAYS],
    "9999-12-31": [f"{day:%Y-%m-%d}" for day in DAYS],
    "Jan 1, 1970": [f"{day:%b} {day.day}, {day.year}" for day in DAYS],
}


@pytest.mark.parametrize("cell", PLACEHOLDERS)
def test_a_date_far_from_the_others_is_suspected_with_the_line_that_makes_it_none(cell, write):
    base = write([*PLACEHOLDERS[cell], *[cell] * 9])
    ((name, why),) = suspected(block_of(), base)
    assert name == "v" and "in 9 rows" in why
    (options,) = options_of(why)
    source = read(block_of(*options), base)
    assert np.isnan(source.fetch("v").values).sum() == 9 and not suspected(block_of(*options), base)
    preprocessing = prepare(source, block_of(*options), base / "out").preprocessing
    later = given({"v": [cell, PLACEHOLDERS[cell][0]], "b": [1.0, 2.0]}, block_of(*options), preprocessing)
    assert np.isnan(later.fetch("v").values).tolist() == [True, False]


def test_a_second_date_that_means_no_value_does_not_undo_the_first(write):
    base = write([*PLACEHOLDERS["9999-12-31"], *["9999-12-31"] * 9, *["1900-01-01"] * 9])
    options = []
    while asked := suspected(block_of(*options), base):
        (options,) = options_of(asked[0][1])
    assert np.isnan(read(block_of(*options), base).fetch("v").values).sum() == 18


@pytest.mark.parametrize("said", ["1900-01-01", '"1900-01-01"', "[1900-01-01, 2099-12-31T12:00:00]"])
def test_a_date_that_means_no_value_may_stand_with_or_without_quotes(said, write):
    base = write([*PLACEHOLDERS["9999-12-31"], *["1900-01-01"] * 9, "2099-12-31T12:00:00Z"])
    gaps = np.isnan(read(block_of(f"data.dates={{v: {{missing: {said}}}}}"), base).fetch("v").values)
    assert gaps.sum() == (10 if "[" in said else 9)


def test_a_number_that_is_a_marker_is_no_date_so_many_days_after_1970(write):
    base, block = write(PLACEHOLDERS["9999-12-31"]), block_of("data.missing.markers=['', '999']")
    preprocessing = prepare(read(block, base), block, base / "out").preprocessing
    later = given({"v": ["1972-09-26", "1972-09-27"], "b": [1.0, 999.0]}, block, preprocessing)
    assert later.fetch("v").values.tolist() == [999, 1000]
    assert np.isnan(later.fetch("b").values).tolist() == [False, True]


@pytest.mark.parametrize("said", ["soon", '"1900-13-01"', "19", "''"])
def test_what_means_no_value_among_dates_must_be_a_date(said):
    with pytest.raises(SpecError, match=r"data\.dates\.v\.missing"):
        block_of(f"data.dates={{v: {{missing: {said}}}}}")


def test_of_dates_in_parquet_it_is_the_same_line(tmp_path):
    frame = pandas.DataFrame({"v": [*DAYS, *[pandas.Timestamp("1900-01-01")] * 9], "b": range(N + 9), "y": np.arange(N + 9) / 3})
    frame.to_parquet(tmp_path / "t.parquet")
    ((_, why),) = suspected(block_of(source="t.parquet"), tmp_path)
    (options,) = options_of(why)
    assert np.isnan(read(block_of(*options, source="t.parquet"), tmp_path).fetch("v").values).sum() == 9


GAINS = np.exp(8 + BELL).round()
CLEAN = {
    "capital gain": [*[0] * 4000, *GAINS],
    "few gains": [*[0] * 200, *GAINS],
    "losses": [*[0] * 4000, *np.round(1900 + 200 * BELL)],
    "children": [*[0] * 300, *(np.arange(400) % 12 + 1)],
    "rain": [*[0] * 150, *(np.round(np.exp(BELL + 1) * 5) / 5)],
    "discount": [*[0] * 150, *(np.arange(400) % 15 * 5 + 5)],
    "donation": [*[0] * 150, *np.round(5 + np.exp(3 + BELL))],
    "marks": [*range(60, 100), 99, 99, 100, 100, 100],
    "wages": [*np.exp(10 + BELL / 2).round(), *[99_000] * 3],
    "prices": [*RNG.choice([1.99, 4.99, 9.99, 14.99, 19.99, 24.99, 29.99, 39.99, 49.99, 59.99, 79.99, 99.99], 400)],
    "below zero": [*np.round(10 * BELL), -40, -40, -40],
}


@pytest.mark.parametrize("case", CLEAN)
def test_amounts_of_which_many_are_nought_are_not_suspected(case, write):
    assert not suspected(block_of(), write([f"{value:g}" for value in CLEAN[case]]))


# Targets, files, weights -------------------------------------------------------------------------------------------------

WORDS = ["p", "q", "r"] * 40


@pytest.mark.parametrize("mark", ["NA", "nan", "?", "-", "N/A"])
@pytest.mark.parametrize("labels", [WORDS, ["0", "1"] * 60])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_marks_among_the_labels_are_no_class_until_the_spec_says_so(mark, labels, kind, write, tmp_path):
    labels = [mark if n % 20 == 3 else label for n, label in enumerate(labels)]
    write(range(N), labels)
    pandas.DataFrame({"v": np.arange(N) % 9, "y": labels}).to_parquet(tmp_path / "t.parquet")
    problem = only(tmp_path, f"data.source=t.{kind}")
    assert "'y' must " in problem and f"found '{mark}' (and 5 more such cells)" in problem
    drop, keep = options_of(problem)
    dropped, kept = (look(block_of(f"data.source=t.{kind}", *options), tmp_path) for options in (drop, keep))
    assert (dropped.problems, kept.problems) == ((), ())
    assert ({*kept.classes} - {*dropped.classes}, dropped.rows) == ({mark}, N - 6)


def test_new_asks_about_marks_among_the_labels_and_takes_both_answers(write):
    base = write(
        ["n/a" if n % 7 == 2 else n for n in range(N)], ["NA" if n % 20 == 3 else label for n, label in enumerate(WORDS)]
    )
    with pytest.raises(ProjectError) as refused:
        view({"train": base / "t.csv"}, ["y"], "auto", {})
    for options, classes in zip(options_of(str(refused.value)), (3, 4), strict=True):
        found = view({"train": base / "t.csv"}, ["y"], "auto", values_of(options)).found
        assert (len(found.classes), found.problems) == (classes, ())


@pytest.mark.parametrize("marks, asked", [(20, True), (21, True), (30, True), (31, False)])
def test_marks_are_asked_about_as_long_as_they_are_few(marks, asked, write):
    base = write(np.arange(600) ** 2 % 97, np.arange(600) % marks)
    told = [one.why for one in look(block_of(), base).suspicions if one.kind == "task"]
    assert len(told) == asked
    if asked:
        assert f"are the {marks} whole numbers 0 to {marks - 1} amounts" in told[0]
        found = [look(block_of(*options), base) for options in options_of(told[0])]
        assert [(one.task, one.problems, one.suspicions) for one in found] == [("regression", (), ()), ("multiclass", (), ())]


def test_whole_numbers_that_hardly_repeat_are_amounts(write):
    assert not look(block_of(), write(np.arange(60) ** 2 % 97, np.arange(60) % 25)).suspicions


def test_one_column_with_decimal_commas_has_a_line_of_its_own(write):
    base = write([value.replace(".", ",") for value in amounts()])
    problem = only(base)
    whole, one, words = options_of(problem)
    assert (one, words) == (["data.numbers.v={decimal: comma}"], ["data.columns.v=categorical"])
    assert read(block_of(*one), base).kinds["v"] == "numeric" and not look(block_of(*one), base).problems
    assert any("data.numbers: {b: {decimal: point}}" in told for told in look(block_of(*whole), base).problems)
    back = ["data.numbers={b: {decimal: point}, y: {decimal: point}}"]
    assert not look(block_of(*whole, *back), base).problems


@pytest.mark.parametrize("delimiter", [";", ","])
def test_a_delimiter_in_single_quotes_is_told_with_the_key(delimiter, tmp_path):
    rows = (delimiter.join([f"'x{delimiter}y'" if n % 3 else "'z'", str(n % 7), str(n / 3)]) for n in range(60))
    (tmp_path / "t.csv").write_text("\n".join([delimiter.join("aby"), *rows]) + "\n")
    with pytest.raises(ValueError, match="every row must have 3 cells") as refused:
        look(block_of(), tmp_path)
    (options,) = options_of(str(refused.value))
    found = look(block_of(*options), tmp_path)
    assert options == ["data.format.quote=single"] and not found.problems and found.columns[0].distinct == 2


@pytest.mark.parametrize("target", ["y", ["b", "y"]])
def test_without_a_header_the_target_is_named_by_its_column(target, write):
    base = write(amounts())
    block = Experiment().override({"data.source": "t.csv", "data.target": target, "data.format.header": False}).data
    problem, *_ = look(block, base).problems
    (options,) = options_of(problem)
    assert options == ["data.target=column_3" if target == "y" else "data.target=[column_2, column_3]"]
    assert look(block_of("data.format.header=false", *options), base).targets


WEIGHTS = {
    "below 0": (["-1" if n == 7 else "2" for n in range(N)], 2),
    "missing": (["" if n % 9 == 7 else "2.5" for n in range(N)], 2),
    "both": (["" if n % 9 == 7 else "-2" if n % 5 == 1 else "2.5" for n in range(N)], 2),
    "nothing but 0": (["0"] * N, 1),
    "many": ([f"{n / 7 - 5:.3f}" for n in range(N)], 1),
}


@pytest.mark.parametrize("case", WEIGHTS)
@pytest.mark.parametrize("also", [False, True])
def test_weights_that_do_not_serve_are_listed_with_what_helps(case, also, write):
    cells, ways = WEIGHTS[case]
    base = write(cells, ["" if also and n == 5 else n % 7 + n / 8 for n in range(N)], name="w")
    weighted = ["data.weight=w", "data.split.train=0.9", "data.split.valid=0.05", "data.split.test=0.05"]
    problems = look(block_of(*weighted), base).problems
    assert len(problems) == 1 + also and "mend" not in problems[-1]
    assert "column 'w' must hold a number of at least 0 in every training row" in problems[-1]
    options = options_of(problems[-1])
    assert len(options) == ways
    for way in options:
        block = block_of(*weighted, *way, *(["data.missing.target=drop"] if also else []))
        assert not look(block, base).problems
        assert prepare(read(block, base), block, base / "out").columns == ("b",)
