"""Numbers and dates as people write them: found in all cells of a column, kept, and read in the same way later."""

from __future__ import annotations

import shlex
from decimal import Decimal

import numpy as np
import pandas
import pyarrow
import pytest

from pipelines.data.cells import as_stated, numbers
from pipelines.data.columns import DataError
from pipelines.data.look import look
from pipelines.data.parts import About, prepare
from pipelines.data.read import read
from pipelines.data.rows import blocks, given
from pipelines.spec import DataSpec, Experiment, load
from pipelines.spec.file import as_option, values_of
from pipelines.stages.paths import RunPaths
from pipelines.stages.split import split


def block_of(source="t.csv", target="y", **changes):
    return DataSpec.model_validate({"source": source, "target": target, **changes})


@pytest.fixture
def table(tmp_path):
    """Write t.csv of a column `name` and a target, with semicolons between cells."""

    def write(cells, name="a"):
        rows = "".join(f"{cell};{n % 7 + n / 8}\n" for n, cell in enumerate(cells))
        (tmp_path / "t.csv").write_text(f"{name};y\n{rows}")
        return tmp_path

    return write


COMMA, POINT = {"thousands": "comma"}, {"thousands": "point", "decimal": "comma"}
WRITTEN = {
    "1,234.50|2,000|7": (COMMA, [1234.5, 2000, 7]),
    "1,234,567|890": (COMMA, [1234567, 890]),
    "1.234,5|2.345,75|12,5": (POINT, [1234.5, 2345.75, 12.5]),
    "1 234|5 678|91": ({"thousands": "blank"}, [1234, 5678, 91]),
    "1\u202f234,5|2\u00a0000": ({"thousands": "blank", "decimal": "comma"}, [1234.5, 2000]),
    "1'234.5|6": ({"thousands": "apostrophe"}, [1234.5, 6]),
    "12,34,567|1,00,000": (COMMA, [1234567, 100000]),
    "$52,000.00 |$1,000.00|900": ({**COMMA, "unit": "$"}, [52000, 1000, 900]),
    "$5,000|$734": ({**COMMA, "unit": "$"}, [5000, 734]),
    "12,50 EUR|7,25 EUR": ({"decimal": "comma", "unit": "EUR"}, [12.5, 7.25]),
    "USD 5|$6": ({"unit": ["USD", "$"]}, [5, 6]),
    "-$5.5|$-6|+$7": ({"unit": "$"}, [-5.5, -6, 7]),
    "5%|12.5 %|0": ({"unit": "%"}, [5, 12.5, 0]),
    "36 months|60 months": ({"unit": "months"}, [36, 60]),
    "(5.0)|3.5|4-": ({"accounting": True}, [-5, 3.5, -4]),
    "($1,200.50)|$3": ({**COMMA, "unit": "$", "accounting": True}, [-1200.5, 3]),
    "+5|- 6|−7": ({}, [5, -6, -7]),
}  # fmt: skip
NO_NUMBERS = ("K1|K2", "1st|2nd", "10+|5", "00123|1,000", "1,2,3|4", "1.2.3|4", "5%|0.05", "12 kg|9 lb", "12:30|9")
PHONES = ("030 1234567|0171 234567", "612 345 678|699 123 456", "+49 301 234 567|+49 711 222 333")


@pytest.mark.parametrize("cells", WRITTEN)
def test_numbers_are_read_as_all_cells_of_the_column_show(cells, table):
    how, expected = WRITTEN[cells]
    found = look(block_of(target="y"), table(cells.split("|")))
    source = read(block_of(), table(cells.split("|")))
    assert (source.kinds["a"], source.fetch("a").values.tolist()) == ("numeric", expected)
    assert as_stated(source.numbers["a"], "point") == how
    assert "a" in found.written("numbers") or not how


@pytest.mark.parametrize("cells", [*NO_NUMBERS, *PHONES])
def test_what_only_looks_like_numbers_is_left_alone(cells):
    texts = pyarrow.array(cells.split("|"), pyarrow.large_string())
    assert numbers.find(texts, "point", "a") == []


def test_the_unit_in_the_header_may_stand_in_some_cells(table):
    source = read(block_of(), table(["9.1 kg", "8.5", "7kg"], "weight (kg)"))
    assert source.fetch("weight (kg)").values.tolist() == [9.1, 8.5, 7]


ASKED = {
    "96,587|8,940|734": ([96587, 8940, 734], [96.587, 8.94, 734]),
    "$3.459|$2.899": ([3.459, 2.899], [3459, 2899]),
    "1.234|734|96.587": ([1.234, 734, 96.587], [1234, 734, 96587]),
    "$5|€6": ([5, 6],),
    "(1)|(2)|(3)": ([-1, -2, -3],),
}


@pytest.mark.parametrize("cells", ASKED)
def test_of_two_readings_both_are_named_and_each_option_that_is_printed_gives_one(cells, table):
    base = table(cells.split("|"))
    problem, *_ = look(block_of(), base).problems
    told = as_option(problem).partition("; give it as ")[2].split(", or ")
    read_as = []
    for option in told[:-1]:  # the last says categorical
        changes = values_of([shlex.split(option)[1]])
        experiment = Experiment().override({"data.source": "t.csv", "data.target": "y", **changes})
        read_as.append(read(experiment.data, base).fetch("a").values.tolist())
    assert read_as == list(ASKED[cells])
    assert told[-1] == "--set data.columns.a=categorical"


@pytest.mark.parametrize("cells", ["1.234|0.734|5", "1.234|1734", "1.234|5.67|8", "1.234|5.678", "1.234|734|0", "7|8", "-1.5|2"])
def test_decimals_that_cannot_be_thousands_are_not_asked_about(cells, table):
    """Nor where every number has three: they are written so, and a spec would have to say it of many a file."""
    base = table(cells.split("|") * 5)
    assert not look(block_of(), base).problems
    assert read(block_of(), base).fetch("a").values.tolist() == [float(cell) for cell in cells.split("|")] * 5


def test_what_the_spec_says_of_points_is_not_asked_again(table):
    """Nor of rows that are predicted later."""
    base = table(["1.234", "734", "96.587"])
    assert read(block_of(columns={"a": "numeric"}), base).fetch("a").values.tolist() == [1.234, 734, 96.587]
    assert read(block_of(numbers={"a": POINT}), base).fetch("a").values.tolist() == [1234, 734, 96587]


def test_words_among_them_are_named(table):
    cells = [f"${n},000.50" for n in range(1, 40)] + ["n/a"]
    (problem,) = look(block_of(), table(cells)).problems
    assert "must hold numbers or words, found 'n/a', as 1 of 40 cells are no numbers" in problem
    assert not look(block_of(missing={"markers": ["", "n/a"]}), table(cells)).problems


def test_whole_numbers_that_lose_digits_are_refused_with_marks_too(table):
    cells = ["9,007,199,254,740,993", "5", "9,007,199,254,740,993"]
    assert "whole numbers below 2^53" in look(block_of(), table(cells)).problems[0]


def test_a_target_of_amounts_is_a_number_and_few_such_texts_stay_classes(table, tmp_path):
    text = "y;b\n" + "".join(f"${n},250;{n}\n" for n in range(1, 40))
    (tmp_path / "t.csv").write_text(text)
    source = read(block_of(), tmp_path)
    assert source.fetch("y").values[:2].tolist() == [1250, 2250]
    (tmp_path / "t.csv").write_text("y;b\n" + "".join(f"{n % 2 + 1}%;{n}\n" for n in range(20)))
    assert read(block_of(), tmp_path).kinds["y"] == "categorical"


def test_what_a_column_is_not_is_an_error_where_the_spec_says_how_it_is_written(table):
    with pytest.raises(DataError, match=r"t\.csv:3: column 'a' must hold finite numbers, found '5,5'"):
        read(block_of(numbers={"a": {"thousands": "comma"}}), table(["1,500", "5,5"]))
    with pytest.raises(DataError, match=r"data\.numbers must name columns, got 'aa', which fits none"):
        read(block_of(numbers={"aa": {}}), table(["1"]))


def test_rows_that_are_answered_later_are_read_as_the_training_rows_were(table, tmp_path):
    base = table([f"{n}.{n:03d},5 EUR" for n in range(1, 40)])
    prepare(read(block_of(), base), block_of(), tmp_path / "out")
    preprocessing = About.load(tmp_path / "out/about.json").preprocessing
    assert preprocessing.numbers["a"].thousands == "point"
    # No cell of these files shows it: by itself 1.234 would be a number with a point.
    (tmp_path / "new.csv").write_text("a\n1.234\n2.000 EUR\n3\n")
    ((source, *_),) = blocks(tmp_path / "new.csv", "new.csv", block_of(), preprocessing, ())
    assert source.fetch("a").values.tolist() == [1234, 2000, 3]
    frame = pandas.DataFrame({"a": ["1.234", "2.000,5 EUR", None]})
    np.testing.assert_equal(given(frame, block_of(), preprocessing).fetch("a").values, [1234, 2000.5, np.nan])
    assert given({"a": [1.234]}, block_of(), preprocessing).fetch("a").values.tolist() == [1.234]  # a number is itself
    with pytest.raises(DataError, match=r"found '\$5'; it did in the training rows"):
        given({"a": ["$5"]}, block_of(), preprocessing)


def test_two_marks_of_one_sign_are_refused():
    with pytest.raises(ValueError, match="decimal must not be thousands, got comma for both"):
        block_of(numbers={"a": {"thousands": "comma", "decimal": "comma"}})
    with pytest.raises(ValueError, match=r"numbers\.a\.decimal must be given where thousands is data\.format\.decimal"):
        block_of(numbers={"a": {"thousands": "point"}})


# Dates -----------------------------------------------------------------------------------------------------------------

DATED = {
    "6/16/14|11/2/12": (["%m/%d/%y"], ["2014-06-16", "2012-11-02"]),
    "16/6/68|1/2/69": (["%d/%m/%y"], ["2068-06-16", "1969-02-01"]),
    "31.12.70|1.2.99": (["%d.%m.%y"], ["1970-12-31", "1999-02-01"]),
    "99-12-31|01-02-03": (["%y-%m-%d"], ["1999-12-31", "2001-02-03"]),
    "3 May 2021|12 Jun 2020": (["%d %b %Y"], ["2021-05-03", "2020-06-12"]),
    "January 5, 2020|July 14, 1999": (["%B %d, %Y"], ["2020-01-05", "1999-07-14"]),
    "05-MAR-98|17-Dec-01": (["%d-%b-%y"], ["1998-03-05", "2001-12-17"]),
    "Mon, 02 Feb 2015|Tue, 3 Feb 2015": (["%a, %d %b %Y"], ["2015-02-02", "2015-02-03"]),
    "Monday, February 2, 2015": (["%A, %B %d, %Y"], ["2015-02-02"]),
    "September-2015|March-2016": (["%B-%Y"], ["2015-09-01", "2016-03-01"]),
    "Sep-15|Dec-99": (["%b-%y"], ["2015-09-01", "1999-12-01"]),
    "2015-09|2016-12": (["%Y-%m"], ["2015-09-01", "2016-12-01"]),
    "6/16/2014 2:30 PM|6/17/2014 11:00 AM": (["%m/%d/%Y %I:%M %p"], ["2014-06-16T14:30", "2014-06-17T11:00"]),
    "6/16/14 14:30|11/2/12": (["%m/%d/%y %H:%M", "%m/%d/%y"], ["2014-06-16T14:30", "2012-11-02"]),
    "2015-03-04|17 May 2016|6/16/14": (["%Y-%m-%d", "%d %b %Y", "%m/%d/%y"], ["2015-03-04", "2016-05-17", "2014-06-16"]),
    "14:30|06:00:30": (["%H:%M", "%H:%M:%S"], ["1970-01-01T14:30", "1970-01-01T06:00:30"]),
}


def days_of(moments):
    return (np.array(moments, "datetime64[s]").astype(np.int64) / 86400).tolist()


@pytest.mark.parametrize("cells", DATED)
def test_dates_are_read_as_all_cells_of_the_column_show(cells, table):
    formats, expected = DATED[cells]
    source = read(block_of(), table([cells.split("|")[0], *cells.split("|")]))
    assert source.kinds["a"] == "datetime"
    assert list(source.dates["a"].formats) == formats
    assert source.fetch("a").values[1:].tolist() == pytest.approx(days_of(expected), abs=1e-9)


@pytest.mark.parametrize("word", ["unknown", "now", "today"])  # the latter are moments to pandas, other ones each day
def test_no_column_of_dates_becomes_categories_a_word_in_it_is_named(word, table):
    cells = [f"{n % 28 + 1} May {1980 + n % 40}" for n in range(200)]
    problem, *_ = look(block_of(), table([*cells, word])).problems
    assert f"t.csv:202: column 'a' must hold dates or words, found '{word}', as 1 of 201 cells are no dates" in problem


@pytest.mark.parametrize(
    "cells, meant", [("3/4/14|5/6/12", "2014-04-03 2014-03-04"), ("01-02-03", "2003-02-01 2003-01-02 2001-02-03")]
)
def test_an_order_that_no_cell_shows_is_asked_about_and_each_option_gives_one(cells, meant, table):
    base = table([*cells.split("|"), *cells.split("|")])
    problem, *_ = look(block_of(), base).problems
    assert "which may mean " + " or ".join(meant.split()) in problem
    read_as = []
    for option in as_option(problem).partition("; give it as ")[2].split(", or ")[:-1]:  # the last says categorical
        changes = values_of([shlex.split(option)[1]])
        experiment = Experiment().override({"data.source": "t.csv", "data.target": "y", **changes})
        read_as.append(read(experiment.data, base).fetch("a").values[0])
    assert read_as == days_of(meant.split())
    if "/" in cells:  # of the whole file
        assert read(block_of(format={"dates": "day_first"}), base).fetch("a").values[0] == days_of(["2014-04-03"])[0]


def test_the_pivot_says_the_century(table):
    base = table(["6/16/30", "6/17/29"])
    how = {"format": "%m/%d/%y", "pivot": 29}
    assert read(block_of(dates={"a": how}), base).fetch("a").values.tolist() == days_of(["1930-06-16", "2029-06-17"])
    assert read(block_of(dates={"a": {"pivot": 29}}), base).dates["a"].model_dump() == {
        "format": ("%m/%d/%y",), "pivot": 29, "parts": ("day",), "missing": (),
    }  # fmt: skip


def test_parts_of_dates_become_inputs_and_later_rows_are_read_by_the_same_formats(table, tmp_path):
    base = table([f"{n % 12 + 1}/{n % 28 + 1}/{n % 9 + 10} {n % 24}:30" for n in range(60)] + [""])
    parts = ["year", "month", "weekday", "hour"]
    block = block_of(dates={"a": {"parts": parts}}, scaling="none", split={"duplicates": "apart"})
    about = prepare(read(block, base), block, tmp_path / "out")
    preprocessing = About.load(tmp_path / "out/about.json").preprocessing
    assert preprocessing == about.preprocessing
    assert [name for name in preprocessing.inputs if "missing" not in name] == [f"a {part}" for part in parts]
    X = preprocessing.apply(given({"a": ["1/2/15 3:30", "12/31/99 23:30"]}, block, preprocessing))
    own = [preprocessing.inputs.index(f"a {part}") for part in parts]
    assert X[:, own].tolist() == [[2015, 1, 4, 3], [1999, 12, 4, 23]]
    with pytest.raises(DataError, match=r"found '2015-01-02'; it did in the training rows"):
        given({"a": ["2015-01-02"]}, block, preprocessing)
    native = given(pandas.DataFrame({"a": pandas.to_datetime(["2015-01-02 03:30"])}), block, preprocessing)
    assert (preprocessing.apply(native)[0] == X[0]).all()


def test_what_is_no_format_is_refused():
    with pytest.raises(ValueError, match=r"format must be one of strptime, such as %m/%d/%y, got '%Q'"):
        block_of(dates={"a": {"format": "%Q"}})


# Rows and files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "t.csv").write_text(text)
        return tmp_path

    return write


ROWS = "".join(f"{n};{n % 5};{'uv'[n % 2]};;\n" for n in range(40))


def test_rows_without_any_value_are_passed_over_and_counted(written, tmp_path):
    base = written("a;b;y;;\n;;;;\n" + ROWS + ";;;;\n;;;;\n")
    source = read(block_of(), base)
    assert (source.rows, source.left_out, source.line(0)) == (40, {"blank": 3}, "t.csv:3")
    about = prepare(source, block_of(), tmp_path / "out")
    assert About.load(tmp_path / "out/about.json").rows_left_out == about.rows_left_out == {"blank": 3}
    numbers_of_rows = np.concatenate([np.load(tmp_path / "out" / part / "rows.npy") for part in ("train", "valid", "test")])
    assert sorted(numbers_of_rows) == [*range(1, 41)]
    first = np.load(tmp_path / "out/train/X.npy")[:, 0]
    order = np.argsort(np.load(tmp_path / "out/train/rows.npy"))
    assert (np.diff(first[order]) > 0).all()


def test_rows_without_a_target_are_left_out_where_the_spec_says_so(written):
    base = written("a;b;y;;\n1;2;;;\n" + ROWS + "3;4; ;;\n;;;;\n")
    (problem,) = look(block_of(), base).problems
    assert problem == (
        "t.csv:2: target 'y' must have a value in every row, found none here (and in 1 more rows); to leave such rows out set "
        "data.missing.target: drop"
    )
    changes = values_of([shlex.split(as_option(problem).partition("; give it as ")[2])[1]])
    block = Experiment().override({"data.source": "t.csv", "data.target": "y", **changes}).data
    found = look(block, base)
    assert (found.rows, found.problems, found.rows_left_out) == (40, (), {"blank": 1, "without a target": 2})


HEADLESS = "".join(f"K{n % 2 + 1},{n % 4},L{n % 3},{'QR'[n % 2]}\n" for n in range(40))


def test_a_first_line_that_looks_like_a_row_is_asked_about(written):
    base = written(HEADLESS)
    (asked,) = [one for one in look(block_of(target="Q"), base).suspicions if one.kind == "written"]
    assert "set data.format.header: false; its columns are column_1 to column_4" in asked.why
    found = look(block_of(target="column_4", format={"header": False}), base)
    assert (found.rows, found.guessed, [one for one in found.suspicions if one.kind == "written"]) == (40, False, [])
    taken = look(block_of(target="column_4"), base)
    assert (taken.rows, taken.guessed) == (40, True)
    named = look(block_of(target="d"), written("a,b,c,d\n" + HEADLESS))
    assert (named.rows, named.guessed, [one for one in named.suspicions if one.kind == "written"]) == (40, False, [])


def test_single_quotes_are_suspected_with_their_key(written):
    base = written("a,y\n" + "".join(f"'{n}','{'pq'[n % 2]}'\n" for n in range(30)))
    (asked,) = [one for one in look(block_of(), base).suspicions if one.kind == "written"]
    assert "set data.format.quote: single" in asked.why
    assert read(block_of(format={"quote": "single"}), base).kinds["a"] == "numeric"


def test_rows_that_stand_in_quotes_as_a_whole_are_read_where_that_is_stated(written):
    rows = "".join(f'"{n},""w, {n}"",{n % 5}"\n' for n in range(30))
    for header in ("a,b,y\n", '"a,b,y"\n'):
        base = written(header + rows)
        with pytest.raises(DataError, match=r"found 2\d of 2\d rows that do so as a whole; set data\.format\.quote: rows"):
            read(block_of(), base)
        source = read(block_of(format={"quote": "rows"}), base)
        assert (source.rows, source.kinds["a"], source.fetch("b").categories[0], source.line(3)) == (
            30,
            "numeric",
            "w, 0",
            "t.csv:5",
        )


# What is asked about -----------------------------------------------------------------------------------------------------


def asked(block, base, kind):
    return [(one.column, one.why) for one in look(block, base).suspicions if one.kind == kind]


def accepted(why, base):
    """What is read where the printed line is given as an option."""
    changes = values_of([shlex.split(as_option(why).partition("; give it as ")[2].partition(", or ")[0])[1]])
    return read(Experiment().override({"data.source": "t.csv", "data.target": "y", **changes}).data, base)


def test_marks_are_asked_about_and_both_answers_named(written):
    base = written("a,y\n" + "".join(f"{n / 4},{n * n % 21}\n" for n in range(200)))
    ((name, why),) = asked(block_of(), base, "task")
    assert name == "y" and "for amounts set data.task: regression; for classes set data.task: multiclass" in why
    assert not asked(block_of(task="multiclass"), base, "task")
    rare = written("a,y\n" + "".join(f"{n / 4},{n // 10}\n" for n in range(92)))
    (problem,) = look(block_of(), rare).problems
    assert "if they are amounts set data.task: regression; else add rows" in problem


def test_names_that_differ_by_a_sign_are_no_spellings_and_the_line_for_others_is_yaml(written):
    tools = ["C", "C#", "C++", "A+", "A-", "A"]
    places = ["Elm Road", "Elm Road", "elm road,", "Oak: North", "Oak: North", "Oak North"]
    rows = "".join(f'{tools[n % 6]},"{places[n % 6]}",{n % 2}\n' for n in range(60))
    base = written("tool,place {1},y\n" + rows)
    ((name, why),) = asked(block_of(), base, "spelling")
    assert name == "place {1}"
    assert accepted(why, base).fetch("place {1}").categories == ("Elm Road", "Oak: North")


SENTINELS = {"-200": [*range(1, 50)], "999": [*range(20, 90)], "0": [n / 10 for n in range(180, 400)], "-1": [*range(0, 90, 2)]}


@pytest.mark.parametrize("sentinel", SENTINELS)
def test_a_number_that_may_mean_no_value_is_shown_with_its_rows_and_a_line_that_makes_it_none(sentinel, written):
    base = written(
        "a,y\n"
        + "".join(f"{cell},{n / 7}\n" for n, cell in enumerate([*SENTINELS[sentinel], sentinel, f"{sentinel}.0", sentinel]))
    )
    ((name, why),) = asked(block_of(), base, "sentinel")
    assert name == "a" and why.startswith(f"{sentinel} in 3 rows")
    source = accepted(why, base)
    assert np.isnan(source.fetch("a").values).sum() == 3
    block = block_of(numbers={"a": {"missing": float(sentinel)}})
    preprocessing = prepare(source, block, base / "out").preprocessing
    later = given({"a": [float(sentinel), 5.0]}, block, preprocessing)
    assert np.isnan(later.fetch("a").values).tolist() == [True, False]


def test_the_files_order_of_dates_is_for_columns_that_do_not_show_theirs(written):
    base = written("a,b,y\n" + "".join(f"0{1 + n % 9}/10/2015,2/{13 + n % 9}/2015,{n / 7}\n" for n in range(30)))
    assert [problem.count("day_first or month_first") for problem in look(block_of(), base).problems] == [1]
    block = block_of(format={"dates": "day_first"})
    source = read(block, base)
    found = [source.fetch(name).values[0] for name in "ab"]
    assert found == days_of(["2015-10-01", "2015-02-13"]) and not look(block, base).problems
    later = given({"a": ["03/10/2015"], "b": ["2/21/2015"]}, block, prepare(source, block, base / "out").preprocessing)
    assert [later.fetch(name).values[0] for name in "ab"] == days_of(["2015-10-03", "2015-02-21"])


def test_a_sentinel_among_amounts_is_accepted_with_how_these_are_written(written):
    amounts = [f'"$1,{n:03}.50"' for n in range(60)] + ['"$9,999.00"'] * 3
    base = written("a,y\n" + "".join(f"{cell},{n / 7}\n" for n, cell in enumerate(amounts)))
    ((_, why),) = asked(block_of(), base, "sentinel")
    values = accepted(why, base).fetch("a").values
    assert np.isnan(values).sum() == 3 and values[1] == 1001.5


def test_a_whole_number_beyond_2_to_the_53_is_refused_with_a_point_behind_it_too(written):
    base = written("a,y\n" + "".join(f"{2**53 + n % 9}.0,{n / 7}\n" for n in range(60)))
    assert any("must hold whole numbers below 2^53" in problem for problem in look(block_of(), base).problems)


@pytest.mark.parametrize(
    "cells", [range(100), [n % 3 - 1 for n in range(99)], [*range(-5, 90), -5, -5], [*range(60, 100), 99, 99]]
)
def test_a_plain_edge_is_not_suspected(cells, written):
    assert not asked(block_of(), written("a,y\n" + "".join(f"{cell},{n / 7}\n" for n, cell in enumerate(cells))), "sentinel")


def test_free_text_is_called_that_and_codes_are_identifiers(written):
    said = ["works well", "too small", "came late but fine", "as described"]
    letters = "abcdefghij"
    rows = "".join(f"{said[n % 4]} {letters[n // 4 % 10]}{letters[n // 40]}xyz,u{n:03d},{n % 9},{n / 4}\n" for n in range(100))
    notes = look(block_of(), written("text,id,a,y\n" + rows))
    told = {column.name: column.note for column in notes.columns}
    assert told["text"] == "free text: 100 different texts in 100 rows"
    assert told["id"] == "100 different texts in 100 rows: looks like an identifier"


@pytest.mark.parametrize("name", [None, "key"])
def test_pandas_index_in_parquet_is_never_an_input(name, tmp_path):
    frame = pandas.DataFrame({"a": np.arange(40.0), "y": np.arange(40) / 3}).sample(frac=1, random_state=0).rename_axis(name)
    frame.to_parquet(tmp_path / "t.parquet")
    block = block_of("t.parquet")
    source = read(block, tmp_path)
    assert source.inputs == ("a",) and list(source.notes.values()) == ["it is pandas' index"]
    stated = block_of("t.parquet", columns={name or "__index_level_0__": "numeric"})
    assert len(read(stated, tmp_path).inputs) == 2


def test_text_in_parquet_is_numbers_where_marks_or_units_say_so_and_else_text(tmp_path):
    columns = {
        "plain": [str(n) for n in range(60)],
        "list": [f"{n % 3},{n % 4}" for n in range(60)],
        "fee": [f"${n},250.50" for n in range(1, 61)],
        "day": [f"{n % 12 + 1}/{n % 28 + 1}/14" for n in range(60)],
        "y": np.arange(60) / 3,
    }
    pandas.DataFrame(columns).to_parquet(tmp_path / "t.parquet")
    found = read(block_of("t.parquet"), tmp_path).kinds
    assert (found["plain"], found["list"], found["fee"], found["day"]) == ("ignore", "categorical", "numeric", "datetime")


def test_whole_decimals_that_lose_digits_are_refused(tmp_path):
    from pyarrow import parquet

    cells = pyarrow.array([Decimal(2**53 + 1 + n % 3) for n in range(60)], pyarrow.decimal128(30, 0))
    parquet.write_table(pyarrow.table({"a": cells, "y": np.arange(60) / 3}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"column 'a' must hold whole numbers below 2\^53"):
        read(block_of("t.parquet"), tmp_path)


def test_several_targets_of_two_values_are_sent_on_no_circle(written):
    base = written("a,u,v\n" + "".join(f"{n},{n % 2},{n % 3 % 2}\n" for n in range(40)))
    (problem,) = look(block_of(target=["u", "v"]), base).problems
    assert problem.endswith("predict classes one at a time: name one data.target, and have data.columns ignore the others")


def test_split_lists_all_faults_as_data_does(written):
    base = written(
        "a,b,y\n" + "".join(f"{'n/a' if n == 3 else n},{'x' if n == 5 else n},{'' if n == 7 else 'p'}\n" for n in range(40))
    )
    (base / "params.yaml").write_text("data: {source: t.csv, target: y}\n")
    problems = look(block_of(), base).problems
    with pytest.raises(DataError) as caught:
        split(load(base / "params.yaml"), RunPaths(base, base))
    head, *lines = str(caught.value).splitlines()
    assert head == "t.csv: 3 errors in the data:" and sorted(lines) == sorted(problems) and len(problems) == 3
