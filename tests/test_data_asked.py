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
from pipelines.spec import Experiment
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


UNREAD = {
    "thousands": [f"${value}k" for value in amounts()],
    "two units": [f"{value} {('lb', 'kg')[n % 2]}" for n, value in enumerate(amounts())],
    "pressure": [f"{n % 60 + 90}/{n % 37 + 60}" for n in range(N)],
    "hours": [f"{n % 23}h {n % 59}m" for n in range(N)],
    "some kg": [f"{value}{(' kg', '')[n % 2]}" for n, value in enumerate(amounts())],
    "few kg": [f"{value}{('', '', ' kg')[n % 3]}" for n, value in enumerate(amounts())],
    "words before": [f"approx {value}" for value in amounts()],
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


def test_an_hour_alone_is_a_time(write):
    base = write([f"{n % 12 + 1} {('AM', 'PM')[n % 2]}" for n in range(N)])
    assert read(block_of(), base).fetch("v").values[:2] == pytest.approx([1 / 24, 14 / 24])


UNREAD_DATES = {
    "13-Jan": (written("%d-%b"), 2),
    "2013-W04": (written("%Y-W%V"), 0),
    "26 janvier 2013": ([f"{day.day} {'janvier' if day.month < 6 else 'juillet'} {day.year}" for day in DAYS], 0),
    "2013-01-26 morning": (written("%Y-%m-%d morning"), 0),
    "20130126": (written("%Y%m%d"), 1),
}


@pytest.mark.parametrize("form", UNREAD_DATES)
def test_dates_that_are_not_read_are_asked_about_and_each_line_that_is_printed_works(form, write):
    cells, formats = UNREAD_DATES[form]
    base = write(cells)
    problem = only(base)
    assert "column 'v' must hold" in problem and "look like dates that are not read" in problem
    ways = options_of(problem)
    kinds = [read(block_of(*way), base).kinds["v"] for way in ways]
    assert kinds == [*["datetime"] * formats, "ignore", "numeric" if form == "20130126" else "categorical"]
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
