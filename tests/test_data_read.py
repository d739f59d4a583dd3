"""From a file to columns: what is read, what its columns are taken for, and with which words the rest is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from threading import Thread

import numpy as np
import pytest

from pipelines.data.columns import DataError, find_target
from pipelines.data.read import read
from pipelines.spec import DataSpec


@pytest.fixture
def reads(tmp_path):
    """Write a file and read it; `changes` are keys of the data block."""

    def write(content, target="y", name="t.csv", **changes):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read(DataSpec.model_validate({"source": name, "target": target, **changes}), tmp_path)

    return write


@pytest.fixture
def refused(reads):
    """The message with which a file is refused."""

    def write(*arguments, **changes):
        with pytest.raises(DataError) as caught:
            reads(*arguments, **changes)
        assert caught.value.exit_code == 2
        return str(caught.value)

    return write


def values(source, name="a"):
    """A column as people see it: numbers, or words; None where a value is missing."""
    column = source.fetch(name)
    if source.kinds[name] in ("categorical", "ignore"):
        return [column.categories[code] if code >= 0 else None for code in column.values.tolist()]
    return [None if np.isnan(value) else value for value in column.values.tolist()]


# The bundled sets ------------------------------------------------------------------------------------------------------

BUNDLED = {
    "digits": ("multiclass", 64, 10),
    "breast_cancer": ("binary", 30, 1),
    "wine": ("multiclass", 13, 3),
    "iris": ("multiclass", 4, 3),
    "diabetes": ("regression", 10, 1),
    "linnerud": ("regression", 3, 3),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_set_is_known_for_its_task(name):
    found = read(DataSpec(source=name))
    target = find_target(found, "auto")
    assert (target.task, len(found.inputs), target.outputs) == BUNDLED[name]
    assert {found.kinds[name] for name in found.inputs} == {"numeric"}


def test_names_of_classes_and_features_are_kept_and_classes_are_sorted():
    found = read(DataSpec(source="breast_cancer"))
    assert found.inputs[0] == "mean radius"
    assert find_target(found, "auto").classes == ("benign", "malignant")
    assert find_target(read(DataSpec(source="digits")), "auto").classes == tuple("0123456789")
    assert read(DataSpec(source="linnerud")).targets == ("Weight", "Waist", "Pulse")


# Delimited text: how it is written -------------------------------------------------------------------------------------


def test_a_csv_file_gives_its_numbers(reads):
    found = reads('a,y,b\n1,0.5,-2e3\n"4",6,.25\n+5,1,5.\n')
    assert found.inputs == ("a", "b")
    assert values(found, "a") == [1, 4, 5]
    assert values(found, "b") == [-2000, 0.25, 5]
    assert values(found, "y") == [0.5, 6, 1]
    assert (found.rows, found.line(2)) == (3, "t.csv:4")


WRITTEN = {
    "crlf, blank lines and a byte order mark": (b"\xef\xbb\xbfa,y\r\n1,no\r\n\r\n2, yes\r\n", {}),
    "cr": (b"a,y\r1,no\r2,yes\r", {}),
    "no last line end": (b"a,y\n1,no\n2,yes", {}),
    "utf-16": ("a,y\n1,no\n2,yes\n".encode("utf-16"), {}),
    "utf-16 without a mark": ("a,y\n1,no\n2,yes\n".encode("utf-16-le"), {"encoding": "utf-16-le"}),
    "utf-32": ("a,y\n1,no\n2,yes\n".encode("utf-32"), {}),
    "semicolons": (b"a;y\n1;no\n2;yes\n", {}),
    "tabs": (b"a\ty\n1\tno\n2\tyes\n", {}),
    "pipes": (b"a|y\n1|no\n2|yes\n", {}),
    "runs of spaces": (b"a y\n 1   no\n2 yes \n", {}),
    "single quotes": (b"a,y\n'1','no'\n2,yes\n", {"quote": "single"}),
    "no header": (b"1,no\n2,yes\n", {"header": False}),
    "a stated delimiter": (b"a;y\n1;no\n2;yes\n", {"delimiter": "semicolon"}),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_however_a_text_is_written_it_says_the_same(reads, case):
    content, how = WRITTEN[case]
    headless = how.get("header") is False
    found = reads(content, "column_2" if headless else "y", format=how)
    assert values(found, "column_1" if headless else "a") == [1, 2]
    assert values(found, found.targets[0]) == ["no", "yes"]


@pytest.mark.parametrize("name", ["t.csv.gz", "t.tsv", "t.txt", "T.CSV"])
def test_a_suffix_says_no_more_than_that_it_is_text(reads, name):
    text = b"a\ty\n1\t2\n3\t4\n"
    assert values(reads(gzip.compress(text) if name.endswith("gz") else text, name=name)) == [1, 3]


def test_latin_1_is_read_where_it_is_stated_and_refused_with_its_byte_where_not(reads, refused):
    text = "a,y\n1,né\n2,b\n".encode("latin-1")
    assert values(reads(text, format={"encoding": "latin-1"}), "y") == ["né", "b"]
    assert refused(text) == (
        "t.csv:2: the text must be UTF-8, found 0xe9 at byte 7; for another encoding set data.format.encoding: latin-1, or what "
        "it is"
    )


def test_a_character_that_ends_in_another_block_is_whole_or_refused(reads, refused, monkeypatch):
    monkeypatch.setattr("pipelines.data.text.SAMPLE", 7)
    monkeypatch.setattr("pipelines.data.text.BLOCK", 13)
    assert values(reads("a,y\n1,ééééééé\n2,b\n"), "y") == ["ééééééé", "b"]
    assert "t.csv:2: the text must be UTF-8, found 0xc3 at byte 6" in refused(b"a,y\n1,\xc3a\n2,b\n")


def test_decimals_may_stand_after_a_comma(reads, refused):
    assert values(reads("a;y\n1,5;2\n-2,25e1;3\n", format={"decimal": "comma"})) == [1.5, -22.5]
    assert "column 'a' must hold numbers with a decimal comma, found '1.5'; set data.format.decimal: point" in refused(
        "a;y\n1.5;2\n2,5;3\n", format={"decimal": "comma"}
    )
    assert refused("a;b;y\nred;50,08;2\nblue;n/a;3\nred;7;4\nblue;1,5;5\n") == (
        "t.csv:2: column 'b' must hold numbers with a decimal point, found '50,08' (and 1 more such cells); "
        "set data.format.decimal: comma, or of this column alone set data.numbers: {b: {decimal: comma}}, or set data.columns: "
        "{b: categorical}"
    )
    assert "t.csv:2: column 'y' must hold numbers with a decimal point, found '2,5'" in refused("a;y\n1;2,5\n2;3,5\n3;4\n")


def test_a_first_line_of_numbers_is_a_row_unless_it_names_the_target(reads, refused):
    assert values(reads("5.1,3.5,p\n4.9,3.0,q\n", "column_3"), "column_1") == [5.1, 4.9]
    assert values(reads("1,2,y\n4.9,3.0,q\n"), "1") == [4.9]
    assert "set data.format.header: true" in refused("5.1,3.5,p\n4.9,3.0,q\n")


def test_a_quoted_cell_may_hold_delimiters_line_ends_and_quotes(reads):
    found = reads('a,y\n"p, q\n""r""",1\ns,2\n"5"" pipe",3\n5" pipe,4\n')
    assert values(found) == ['p, q\n"r"', "s", '5" pipe', '5" pipe']
    assert found.line(1) == "t.csv:4"


def test_a_column_without_a_name_is_called_by_its_place_and_ignored(reads):
    found = reads(",a,y\n0,5,6\n1,7,8\n")
    assert found.inputs == ("a",)
    assert dict(found.notes) == {"column_1": "it has no name in the header"}
    assert "column_1" in reads(",a,y\n0,5,6\n1,7,8\n", columns={"column_1": "numeric"}).inputs


BAD_TEXT = {
    "empty": (b"", "t.csv: the file must have a header and rows, found an empty file"),
    "blank": (b"\n\n", "t.csv: the file must have a header and rows, found blank lines alone"),
    "header only": (b"a,y\n", "t.csv: the file has no rows below the header"),
    "target only": (b"y\n1\n", "t.csv: there must be a column beside the target that is not ignored, found none"),
    "a row too short": (b"a,b,y\n1,2,3\n1,2\n", "t.csv:3: every row must have 3 cells as the header has, found 2"),
    "a row too long": (b"a,y\n1,2\n\n1,2,3\n", "t.csv:4: every row must have 2 cells as the header has, found 3"),
    "names twice": (
        b"a,b, a,y,b,a\n1,2,3,4,5,6\n",
        "t.csv: column names must differ, found 'a' in columns 1, 3 and 6, 'b' in columns 2 and 5; if the first line is a row, "
        "set data.format.header: false; else rename them in the file",
    ),
    "no target": (b"a,b\n1,2\n", "t.csv: data.target must name columns of the file, got 'y'; the columns are: a, b"),
    "NUL": (
        b"a,y\n1\x00,2\n",
        "t.csv:2: text must have no NUL bytes, found one; for UTF-16 without a byte order mark set data.format.encoding: "
        "utf-16-le or utf-16-be",
    ),
    "never closed": (b'a,y\n1,2\n3,"4\n5,6\n', "t.csv:3: a quote is opened in this row and never closed"),
    "never closed, in the last cell": (b'a,y\n1,2\n3,"4', "t.csv:3: a quote is opened in this row and never closed"),
    "never closed, too few cells": (b'a,y\n1,2\n"3,4\n5,6\n', "t.csv:3: a quote is opened in this row and never closed"),
    "never closed, before others": (
        b'a,y,c\n1,2,"q\n3,4,"r\n5,6,t\n',
        "t.csv:2: a quote is closed within a cell: a delimiter or a line end must follow it; was an earlier quote never closed?",
    ),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_a_text_that_is_no_table_is_refused_with_its_place(refused, case):
    content, message = BAD_TEXT[case]
    assert refused(content) == message


def test_a_cell_beyond_what_is_read_is_named_with_quotes_or_without(refused):
    told = "t.csv:3: a cell here has more than 131072 characters; was a quote never closed?"
    assert refused(b"a,y\n1,2\n1," + b"x" * 3_000_000 + b"\n1,2\n") == told
    rows = b"1,2\n" * 40_000
    assert refused(b'a,y\n1,2\n"1,2\n' + rows) == told


def test_what_is_no_file_is_refused(reads, refused, tmp_path):
    with pytest.raises(DataError, match=r"must be a file, found none at 'missing\.csv'"):
        read(DataSpec(source="missing.csv", target="y"), tmp_path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"must be a file, got the folder 'folder\.csv'"):
        read(DataSpec(source="folder.csv", target="y"), tmp_path)
    assert "t.csv.gz: must be a whole gzip file" in refused(b"a,y\n1,2\n", name="t.csv.gz")
    assert "t.csv.gz: must be a whole gzip file" in refused(gzip.compress(b"a,y\n1,2\n" * 99)[:-9], name="t.csv.gz")


def test_nothing_is_left_in_the_temporary_folder(reads, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    found = reads(gzip.compress(b"a,y\n1,2\n"), name="t.csv.gz")
    assert values(found) == [1]
    del found
    assert not list((tmp_path / "t").iterdir())


# Kinds -----------------------------------------------------------------------------------------------------------------

LOOKS = {
    "numbers": ("1 2 3", "numeric", [1, 2, 3]),
    "numbers with gaps": ("1 _ 3", "numeric", [1, None, 3]),
    "large numbers": ("1e39 -1e300 2", "numeric", [1e39, -1e300, 2]),
    "words": ("q p _", "categorical", ["q", "p", None]),
    "NA is a word": ("NA SA NA", "categorical", ["NA", "SA", "NA"]),
    "leading zeros": ("00123 456 7", "categorical", ["00123", "456", "7"]),
    "a last leading zero": ("7 456 00123", "categorical", ["7", "456", "00123"]),
    "zeros": ("0 0.5 -0", "numeric", [0, 0.5, 0]),
    "truth": ("true False TRUE", "boolean", [1, 0, 1]),
    "yes and no": ("yes no _", "boolean", [1, 0, None]),
    "yes and false": ("yes false yes", "categorical", ["yes", "false", "yes"]),
    "0 and 1": ("0 1 0", "numeric", [0, 1, 0]),
    "days": ("1970-01-02 1969-12-31 _", "datetime", [1, -1, None]),
    "times": ("1970-01-02T12:00 1970-01-01T06:00:00Z 1970-01-01T00:00:00+06:00", "datetime", [1.5, 0.25, -0.25]),
    "no such day": ("2024-02-30 p q", "categorical", ["2024-02-30", "p", "q"]),
    "the day first, as a 13 says": ("1/2/1970 13/1/1970 _", "datetime", [31, 12, None]),
    "the month first, as a 13 says": ("1/2/1970 1/13/1970 12-31-1969", "datetime", [1, 12, -1]),
    "points, the day first": ("1.2.1970 02.01.1970 2.1.1970T6:00", "datetime", [31, 1, 1.25]),
    "the year first": ("1970/1/2 1970.02.1 1970-01-01", "datetime", [1, 31, 0]),
    "a year of two digits": ("31.12.70 p q", "categorical", ["31.12.70", "p", "q"]),
    "the largest whole number": ("9007199254740991 -9007199254740991 1", "numeric", [2**53 - 1, 1 - 2**53, 1]),
    "a code longer than a number": ("0090071992547409931 p q", "categorical", ["0090071992547409931", "p", "q"]),
    "numbers among words": ("S M 40", "categorical", ["S", "M", "40"]),
}


@pytest.mark.parametrize("case", LOOKS)
def test_a_column_is_what_all_its_cells_look_like(reads, case):
    cells, kind, expected = LOOKS[case]
    found = reads("b,a,y\n" + "".join(f"{n}, {cell.replace('_', '')} ,{n}\n" for n, cell in enumerate(cells.split(" "))))
    assert (found.kinds["a"], values(found)) == (kind, expected)


def test_what_stands_in_the_last_row_counts_for_the_first(reads, monkeypatch):
    monkeypatch.setattr("pipelines.data.text.BLOCK", 1000)
    text = "a,b,c,y\n" + "1, 7.50,,2\n" * 5000
    found = reads(text + "007,w,x,3\n", columns={"b": "categorical"})
    assert found.kinds == {"a": "categorical", "b": "categorical", "c": "categorical", "y": "numeric"}
    assert values(found)[::5000] == ["1", "007"]
    assert values(found, "b")[::5000] == ["7.50", "w"]  # as it was written
    assert values(found, "c")[::5000] == [None, "x"]


def test_a_column_is_the_same_however_it_falls_into_blocks(reads, monkeypatch):
    rng = np.random.default_rng(0)
    text = "a,b,y\n" + "".join(
        f"{a:.6g},{'' if b > 90 else f'w{b}'},{b}\n"
        for a, b in zip(rng.normal(size=3000), rng.integers(99, size=3000), strict=True)
    )
    whole = reads(text)
    monkeypatch.setattr("pipelines.data.text.BLOCK", 900)
    cut = reads(text)
    for name in "aby":
        assert values(whole, name) == values(cut, name)
        assert values(cut, name) == values(cut, name)  # again


def test_ids_columns_without_values_and_ignored_ones_are_no_inputs_and_can_be_fetched(reads):
    rows = "".join(f"u{n},,{n % 9},k,{n}\n" for n in range(60))
    found = reads("id,empty,a,c,y\n" + rows, columns={"c": "ignore"})
    assert found.inputs == ("a",)
    assert dict(found.notes) == {
        "id": "60 different texts in 60 rows: looks like an identifier",
        "empty": "no cell holds a value",
    }
    assert values(found, "id")[:2] == ["u0", "u1"]
    assert values(found, "c")[0] == "k"


def test_fifty_thousand_categories_are_kept_where_they_repeat(reads):
    codes = np.random.default_rng(0).permutation(np.arange(100_000) // 2)
    found = reads("a,y\n" + "".join(f"c{code:05d},{code % 7}\n" for code in codes))
    column = found.fetch("a")
    assert (found.kinds["a"], len(column.categories), column.values.dtype) == ("categorical", 50_000, np.int32)
    assert [column.categories[code] for code in column.values[:3]] == [f"c{code:05d}" for code in codes[:3]]


def test_kinds_can_be_stated_by_name_or_pattern_and_the_name_stands_above(reads):
    text = "id_a,id_b,flag,day,y\n1,2,1,2024-01-01,5\n3,4,0,2024-01-02,6\n"
    kinds = {"id_b": "numeric", "id_*": "ignore", "flag": "boolean", "da?": "categorical"}
    found = reads(text, columns=kinds)
    assert found.kinds == {"id_a": "ignore", "id_b": "numeric", "flag": "boolean", "day": "categorical", "y": "numeric"}
    assert values(found, "flag") == [1, 0]
    assert reads(text, columns={"id_*": "ignore", "i*": "categorical"}).kinds["id_a"] == "categorical"  # the last that fits


def test_numbers_with_leading_zeros_are_numbers_where_that_is_stated(reads):
    assert values(reads("a,y\n007,1\n8,2\n", columns={"a": "numeric"})) == [7, 8]


REFUSED_COLUMNS = {
    "a word among numbers": (
        "1 2 x 4 x",
        {},
        "t.csv:4: column 'a' must hold numbers or words, found 'x', as 2 of 5 cells are no numbers; if that means no value, "
        "add it to data.missing.markers; else set data.columns: {a: categorical}",
    ),
    "a word among dates": ("2024-01-01 soon 2024-01-03", {}, "t.csv:3: column 'a' must hold dates or words, found 'soon'"),
    "no such day": ("2024-02-30 2024-03-01", {}, "t.csv:2: column 'a' must hold dates or words, found '2024-02-30'"),
    "inf": (
        "1 -inf 3",
        {},
        "t.csv:3: column 'a' must hold finite numbers, found '-inf'; if it means no value set data.missing.markers: ",
    ),
    "nan": ("1 2 NaN", {}, "t.csv:4: column 'a' must hold finite numbers, found 'NaN'; if it means no value set"),
    "beyond float64": ("1 1e400", {}, "t.csv:3: column 'a' must hold finite numbers, found '1e400'; if it means no value set"),
    "underscores": ("1_0 2 3", {}, "t.csv:2: column 'a' must hold numbers or words, found '1_0'"),
    "stated numeric": ("007 x", {"a": "numeric"}, "t.csv:3: column 'a' must hold finite numbers, found 'x'; if that means"),
    "stated datetime": ("2024-01-01 soon", {"a": "datetime"}, "t.csv:3: column 'a' must hold dates such as 2024-05-31 or"),
    "stated boolean": ("M F", {"a": "boolean"}, "t.csv:2: column 'a' must hold true and false, yes and no, or 1 and 0"),
    "days stated numeric": (
        "2024-01-01 2024-01-02",
        {"a": "numeric"},
        "t.csv:2: column 'a' must hold finite numbers, found '2024-01-01' (and 1 more such cells); it looks datetime: set "
        "data.columns: {a: datetime}",
    ),
    "prices stated boolean": (
        "1.5 0.5 _ 0",
        {"a": "boolean"},
        "t.csv:2: column 'a' must hold true and false, yes and no, or 1 and 0, found '1.5' (and 1 more such cells); it looks "
        "numeric: set data.columns: {a: numeric}",
    ),
    "words stated numeric": (
        "p q p",
        {"a": "numeric"},
        "t.csv:2: column 'a' must hold finite numbers, found 'p' (and 2 more such cells); set data.columns: {a: categorical}, or "
        "ignore",
    ),
    "day or month": (
        "2024-01-01 3/4/2024 5/6/2024",
        {},
        "t.csv:3: column 'a' must hold dates of which one can tell the day from the month, found '3/4/2024' (and 1 more such "
        "cells), and in no cell a number above 12; set data.format.dates: day_first or month_first",
    ),
    "day or month, stated": ("03-04-2024", {"a": "datetime"}, "t.csv:2: column 'a' must hold dates of which one can"),
    "both orders": (
        "31/12/2024 30/12/2024 12/31/2024",
        {},
        "t.csv:4: column 'a' must hold dates or words, found '12/31/2024', as 1 of 3 cells are no dates with the day first",
    ),
    "whole numbers that lose digits": (
        "1 9007199254740993 9007199254740993",
        {},
        "t.csv:3: column 'a' must hold whole numbers below 2^53 (9007199254740992), as larger ones lose digits, found "
        "'9007199254740993' (and 1 more such cells); set data.columns: {a: categorical} for a code, ignore for an id, or numeric "
        "to have them rounded",
    ),
    "no such column": ("1 2", {"aa*": "ignore"}, "data.columns must name columns, got 'aa*', which fits none; known are: b"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_COLUMNS)
def test_a_column_that_is_neither_one_thing_nor_another_is_refused_with_the_ways_out(refused, case):
    cells, columns, message = REFUSED_COLUMNS[case]
    text = "b,a,y\n" + "".join(f"{n},{'' if cell == '_' else cell},{n}\n" for n, cell in enumerate(cells.split(" ")))
    told = refused(text, columns=columns)
    assert told.startswith(message)


def test_both_ways_out_of_mixed_cells_lead_out(reads):
    text = "a,y\n1,2\nNA,3\n4,5\n"
    assert values(reads(text, missing={"markers": ["", "NA"]})) == [1, None, 4]
    assert values(reads("a,y\n1,2\n-9,3\n4,5\n", missing={"markers": ["", "-9"]})) == [1, None, 4]  # also where it is a number
    assert values(reads(text, columns={"a": "categorical"})) == ["1", "NA", "4"]


def test_each_way_to_read_numbers_of_two_meanings_leads_to_it(reads, refused):
    text = "a;y\n96,587;1\n8,940;2\n734;3\n"
    assert refused(text) == (
        "t.csv:2: column 'a' must hold numbers that can be read in one way, found '96,587' (and 1 more such cells), which may "
        "mean 96587 or 96.587; for 96587 set data.numbers: {a: {thousands: comma}}; for 96.587 set data.numbers: {a: {decimal: "
        "comma}}; for words set data.columns: {a: categorical}"
    )
    assert values(reads(text, numbers={"a": {"thousands": "comma"}})) == [96587, 8940, 734]
    assert values(reads(text, numbers={"?": {"decimal": "comma"}})) == [96.587, 8.94, 734]
    assert values(reads(text, columns={"a": "categorical"})) == ["96,587", "8,940", "734"]


def test_a_zero_before_a_comma_shows_that_it_is_no_mark_of_thousands(refused, reads):
    text = "a;y\n1,288;1\n0,405;2\n-0,450;3\n"
    assert "numbers with a decimal point, found '1,288' (and 2 more such cells); set data.format.decimal: comma" in refused(text)
    assert values(reads(text, format={"decimal": "comma"})) == [1.288, 0.405, -0.45]


def test_what_may_be_a_day_or_a_month_is_as_the_spec_says(reads):
    for stated, days in (("day_first", [31, 1]), ("month_first", [1, 31])):
        assert values(reads("a,y\n1/2/1970,1\n2/1/1970,2\n", format={"dates": stated})) == days


def test_whole_numbers_that_would_lose_digits_are_an_id_or_what_the_spec_says(reads, parquet):
    ids = [2**53 + 2 * n + 1 for n in range(60)]
    text = "id,a,y\n" + "".join(f"{number},{n % 9},{n}\n" for n, number in enumerate(ids))
    typed = {"id": [Decimal(number) for number in ids], "a": [n % 9 for n in range(60)], "y": [*range(60)]}
    for reader in (lambda **more: reads(text, **more), lambda **more: parquet(changes=more, **typed)):
        found = reader()
        assert (found.kinds["id"], values(found, "id")[0]) == ("ignore", str(ids[0]))
        assert found.notes["id"] == "60 different whole numbers in 60 rows, some from 2^53 on: looks like an identifier"
        assert values(reader(columns={"id": "numeric"}), "id")[0] == 2**53
        assert values(reader(columns={"id": "categorical"}), "id")[1] == str(ids[1])


def test_a_target_of_numbers_that_would_lose_digits_is_refused(reads, refused):
    text = "a,y\n" + "".join(f"{n},{2**53 + n}\n" for n in range(3))
    assert "t.csv:2: column 'y' must hold whole numbers below 2^53" in refused(text)
    assert "data.columns: {y: categorical} for a code, or numeric to have them rounded" in refused(text)
    assert reads(text, columns={"y": "numeric"}).kinds["y"] == "numeric"


def test_an_empty_cell_is_a_word_where_it_is_no_marker(reads, refused):
    assert values(reads("a,y\np,1\n,2\n", missing={"markers": ["-"]})) == ["p", ""]
    assert "found ''" in refused("a,y\n1,1\n,2\n3,3\n", missing={"markers": ["-"]})


def test_spellings_come_before_all_else(reads, refused):
    text = "a,b,y\nf,1,1\n female ,five,2\n?,3,3\n"
    found = reads(text, spellings={"a": {"f": "female", "?": ""}, "b": {"five": "5"}})
    assert values(found) == ["female", "female", None]
    assert (found.kinds["b"], values(found, "b")) == ("numeric", [1, 5, 3])
    assert refused(text, spellings={"a": {"fem": "f"}}) == (
        "data.spellings.a: t.csv must have a cell that says 'fem', found none; did you mean female?"
    )
    assert "data.spellings must name a column of the file, got 'aa'; did you mean a?" in refused(
        text, spellings={"aa": {"f": "g"}}
    )


def test_columns_that_the_split_names_must_be_there(refused):
    assert "data.split.group must name a column of the file, got 'clinc'; did you mean clinic?" in refused(
        "clinic,a,y\n1,2,3\n", split={"group": "clinc"}
    )


# Targets ---------------------------------------------------------------------------------------------------------------


def test_a_target_is_numbers_if_all_its_cells_are_else_words(reads):
    assert reads("a,y\n1,2\n2,3.5\n").kinds["y"] == "numeric"
    assert values(reads("a,y\n1,2\n2,no\n"), "y") == ["2", "no"]
    assert values(reads("a,y\n1,01\n2,02\n"), "y") == ["01", "02"]
    assert values(reads("a,y\n1,yes\n2,no\n"), "y") == ["yes", "no"]  # labels are kept
    assert values(reads("a,y\n1,2024-01-01\n2,2024-01-02\n"), "y") == ["2024-01-01", "2024-01-02"]
    assert values(reads("a,y\n1,1\n2,2\n", columns={"y": "categorical"}), "y") == ["1", "2"]


def test_several_targets_come_in_the_order_asked_for(reads):
    found = reads("a,u,v\n1,2,3\n4,5,7\n", target=["v", "u"])
    assert (found.targets, values(found, "v"), found.inputs) == (("v", "u"), [3, 7], ("a",))


@pytest.mark.parametrize("rows", ["1,2\n2,\n", "1,p\n2, \n"])
def test_a_target_without_a_value_is_named_with_its_line(reads, rows):
    with pytest.raises(DataError, match=r"^t\.csv:3: target 'y' must have a value in every row"):
        find_target(reads("a,y\n" + rows), "auto")


def test_a_target_of_untidy_numbers_is_refused(reads, refused):
    numbers = "".join(f"1,{n}.5\n" for n in range(40))
    assert "t.csv:42: column 'y' must hold numbers or words, found 'n/a'" in refused("a,y\n" + numbers + "1,n/a\n")
    assert "t.csv:3: column 'y' must hold finite numbers, found 'nan'" in refused("a,y\n1,2\n2,nan\n")
    assert "t.csv:3: column 'y' must hold finite numbers, found 'p'" in refused("a,y\n1,2\n2,p\n", task="regression")
    assert "column 'y' is a target: data.columns must say numeric or categorical" in refused(
        "a,y\n1,2\n", columns={"y": "ignore"}
    )


def test_a_class_that_says_no_value_is_refused_unless_it_is_stated_to_be_one(reads, refused):
    rows = "a,y\n1,p\n2,NaN\n3,q\n4,nan\n"
    assert refused(rows) == (
        "t.csv:3: target 'y' must have a value in every row, found 'NaN' (and 1 more such cells); if it means no value set "
        'data.missing.markers: ["", NaN, nan] and data.missing.target: drop; if it is the name of a class, set data.columns: '
        "{y: categorical}"
    )
    assert "NaN" in reads(rows, columns={"y": "categorical"}).fetch("y").categories
    assert reads("a,y\n1,N\n2,None\n3,N\n").fetch("y").categories == ("N", "None")


# Parquet ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def parquet(tmp_path):
    """Write t.parquet and read it."""

    def write(target="y", changes=None, **columns):
        import pyarrow
        from pyarrow import parquet as writer

        writer.write_table(pyarrow.table(columns), tmp_path / "t.parquet", row_group_size=2)
        return read(DataSpec.model_validate({"source": "t.parquet", "target": target, **(changes or {})}), tmp_path)

    return write


def test_a_parquet_files_types_say_what_its_columns_hold(parquet):
    import pyarrow as pa

    found = parquet(
        i=pa.array([1, None, 3], pa.int16()),
        f=[0.5, float("nan"), None],
        d=[Decimal("1.25"), None, Decimal("3.00")],
        b=[True, None, False],
        s=["00123", "4", None],
        c=pa.array(["p", None, "q"]).dictionary_encode(),
        day=[date(1970, 1, 2), None, date(1969, 12, 31)],
        time=[datetime(1970, 1, 1, 6, tzinfo=UTC), None, datetime(1970, 1, 2, 12, tzinfo=UTC)],
        ns=pa.array([10**9 * 86400, None, 0], pa.timestamp("ns")),
        none=pa.nulls(3),
        gone=pa.array([float("nan")] * 3),
        y=["yes", "no", "yes"],
    )
    kinds = ["numeric"] * 3 + ["boolean"] + ["categorical"] * 2 + ["datetime"] * 3 + ["ignore"] * 2 + ["categorical"]
    assert list(found.kinds.values()) == kinds
    expected = {
        "i": [1, None, 3], "f": [0.5, None, None], "d": [1.25, None, 3], "b": [1, None, 0], "s": ["00123", "4", None],
        "c": ["p", None, "q"], "day": [1, None, -1], "time": [0.25, None, 1.5], "ns": [1, None, 0], "y": ["yes", "no", "yes"],
    }  # fmt: skip
    for name, cells in expected.items():
        assert values(found, name) == cells, name
    assert found.line(2) == "t.parquet, row 3"


def test_text_in_parquet_that_looks_like_numbers_stays_text_unless_stated(parquet):
    assert values(parquet(a=["1", "2", "x"], y=[1, 2, 3])) == ["1", "2", "x"]
    assert values(parquet(a=["1", "2", None], y=[1, 2, 3], changes={"columns": {"a": "numeric"}})) == [1, 2, None]
    assert values(parquet(a=[1.0, 2.5], y=[1, 2], changes={"columns": {"a": "categorical"}})) == ["1", "2.5"]
    assert values(parquet(a=[3, 4], y=[True, False]), "y") == ["true", "false"]


def test_a_parquet_file_with_inf_or_a_list_or_names_twice_is_refused(parquet, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet as writer

    with pytest.raises(DataError, match=r"t\.parquet, row 2: column 'a' must hold finite numbers, found -inf"):
        parquet(a=[1.0, float("-inf")], y=[1, 2]).fetch("a")
    with pytest.raises(DataError, match=r"column 'a' must hold numbers, text, truth values or dates, found list<.*data\.columns"):
        parquet(a=[[1], [2]], y=[1, 2])
    with pytest.raises(DataError, match=r"'y' must hold .*; write its parts as columns, or, unless it is the target, set data"):
        parquet(a=[1, 2], y=[[1], [2]])
    for columns in ({"a": [{"b": "w"}] * 2, "a.b": [1.5, 2.5]}, {"a.b": [1.5, 2.5], "a": [{"b": 3.5}] * 2}):
        flat = parquet(**columns, y=[1, 2], changes={"columns": {"a": "ignore"}})
        assert flat.inputs == ("a.b",) and values(flat, "a.b") == [1.5, 2.5]
    ignored = parquet(a=[[1], None], b=[1, 2], y=[1, 2], changes={"columns": {"a": "ignore"}})
    assert (ignored.inputs, values(ignored)) == (("b",), ["[1]", None])
    writer.write_table(pa.Table.from_arrays([pa.array([1])] * 3, ["a", "a", "y"]), tmp_path / "u.parquet")
    with pytest.raises(DataError, match="column names must differ, found 'a' in columns 1 and 2"):
        read(DataSpec(source="u.parquet", target="y"), tmp_path)
    (tmp_path / "v.parquet").write_bytes(b"a,y\n1,2\n")
    with pytest.raises(DataError, match=r"v\.parquet: must be a Parquet file"):
        read(DataSpec(source="v.parquet", target="y"), tmp_path)


# A file a part ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def split_in_files(tmp_path):
    """Write train.csv and others, and read them together."""

    def write(target="y", changes=None, **texts):
        for part, text in texts.items():
            (tmp_path / f"{part}.csv").write_text(text)
        source = {part: f"{part}.csv" for part in texts}
        return read(DataSpec.model_validate({"source": source, "target": target, **(changes or {})}), tmp_path)

    return write


def test_files_are_joined_by_the_names_of_their_columns_and_say_their_part(split_in_files):
    found = split_in_files(train="a,b,y\n1,p,2\n2,r,3\n", valid="y,a,b\n4,3,q\n", test="a,b,y\n5,,6\n")
    assert values(found) == [1, 2, 3, 5]
    assert values(found, "b") == ["p", "r", "q", None]
    assert found.fetch("b").categories == ("p", "q", "r")
    assert found.part.tolist() == [0, 0, 1, 2]
    assert [found.line(row) for row in range(4)] == ["train.csv:2", "train.csv:3", "valid.csv:2", "test.csv:2"]


def test_without_a_file_of_validation_rows_the_training_rows_are_open(split_in_files):
    found = split_in_files(train="a,y\n1,2\n2,3\n", test="a,y\n5,6\n")
    assert found.part.tolist() == [-1, -1, 2]


def test_kinds_are_judged_over_all_files(split_in_files):
    found = split_in_files(train="a,b,y\n1,,2\n2,,3\n", test="a,b,y\n05,7,6\n")
    assert values(found) == ["1", "2", "05"]
    assert values(found, "b") == [None, None, 7]
    with pytest.raises(DataError, match=r"test\.csv:2: column 'a' must hold numbers or words, found 'x'"):
        split_in_files(train="a,y\n1,2\n2,3\n", test="a,y\nx,6\n")
    both = split_in_files(train="a,y\nm,2\nf,3\n", test="a,y\nfemale,6\n", changes={"spellings": {"a": {"female": "f"}}})
    assert both.fetch("a").categories == ("f", "m")


def test_files_with_other_columns_are_refused_with_the_difference(split_in_files):
    with pytest.raises(DataError) as caught:
        split_in_files(train="a,b,y\n1,2,3\n", test="a,c,y\n1,2,3\n")
    assert str(caught.value) == "test.csv: must have the columns of train.csv, but lacks 'b' and has besides 'c'"
    with pytest.raises(DataError, match=r"test\.csv: the file has no rows"):
        split_in_files(train="a,y\n1,3\n", test="a,y\n")


# OpenML ----------------------------------------------------------------------------------------------------------------

ARFF = rb"""% a comment
@RELATION flowers
@ATTRIBUTE 'sepal length' REAL
@ATTRIBUTE colour {red, 'dark blue'}
@attribute note string
@attribute code {1,2}
@attribute class {p,q}
@DATA
% another
5.1, 'dark blue', ?, 1, p
?,red,'it\'s',2,q
4,red,k,1,p
"""


@pytest.fixture
def server(monkeypatch):
    """OpenML on this machine: set `.files` to path -> bytes."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            content = self.server.files.get(self.path)
            self.send_response(200 if content is not None else 412)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    here = HTTPServer(("127.0.0.1", 0), Answer)
    here.asked, at = [], f"http://127.0.0.1:{here.server_port}"
    about = {"data_set_description": {"format": "ARFF", "url": f"{at}/flowers.arff"}}
    here.files = {"/about/61": json.dumps(about).encode(), "/flowers.arff": ARFF}
    monkeypatch.setattr(import_module("pipelines.data.read"), "ABOUT", at + "/about/{number}")
    thread = Thread(target=here.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield here
    here.shutdown()
    thread.join()
    here.server_close()


HASH = hashlib.sha256(ARFF).hexdigest()


def flowers(base, sha256=HASH, number=61, **changes):
    return read(DataSpec.model_validate({"source": f"openml:{number}", "target": "class", "sha256": sha256, **changes}), base)


def test_a_data_set_of_openml_is_fetched_once_and_says_itself_what_it_holds(server, tmp_path):
    for _ in range(2):
        found = flowers(tmp_path)
        assert dict(found.kinds) == {
            "sepal length": "numeric",
            **dict.fromkeys(("colour", "note", "code", "class"), "categorical"),
        }
        assert values(found, "sepal length") == [5.1, None, 4]
        assert values(found, "colour") == ["dark blue", "red", "red"]
        assert values(found, "note") == [None, "it's", "k"]
    assert server.asked == ["/about/61", "/flowers.arff"]
    assert flowers(tmp_path, columns={"code": "numeric"}).kinds["code"] == "numeric"


def test_a_data_set_that_is_not_the_pinned_one_is_refused_with_its_hash(server, tmp_path):
    with pytest.raises(DataError, match=f"found {HASH}; if this is the file that you mean set data.sha256: {HASH}"):
        flowers(tmp_path, "0" * 64)
    assert not (tmp_path / ".deltarule").exists()
    flowers(tmp_path)
    with pytest.raises(DataError, match=r"at \.deltarule/openml/61\.arff; delete that file to fetch it anew"):
        flowers(tmp_path, "0" * 64)


def test_without_a_network_there_is_one_clear_error(server, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"openml:62: must be fetched once, but OpenML cannot be reached or does not have it: "):
        flowers(tmp_path, number=62)
    server.files["/about/61"] = b"<html>"
    with pytest.raises(DataError, match=r"openml:61: must be fetched once"):
        flowers(tmp_path)
    monkeypatch.setattr(import_module("pipelines.data.read"), "ABOUT", "http://127.0.0.1:9/{number}")  # nothing listens there
    with pytest.raises(DataError, match=r"put the data set's ARFF file at \.deltarule/openml/61\.arff"):
        flowers(tmp_path)


def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    from socket import create_server

    with create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(
            import_module("pipelines.data.read"), "ABOUT", f"http://127.0.0.1:{silent.getsockname()[1]}/{{number}}"
        )
        monkeypatch.setattr(import_module("pipelines.data.read"), "TIMEOUT", 0.05)
        with pytest.raises(DataError, match="must be fetched once, but OpenML cannot be reached or does not have it: timed out"):
            flowers(tmp_path)


def test_sparse_arff_is_refused(tmp_path):
    (tmp_path / ".deltarule" / "openml").mkdir(parents=True)
    sparse = b"@attribute a real\n@attribute class {p,q}\n@data\n{0 1, 1 p}\n"
    (tmp_path / ".deltarule" / "openml" / "61.arff").write_bytes(sparse)
    with pytest.raises(DataError, match="found sparse ARFF"):
        flowers(tmp_path, hashlib.sha256(sparse).hexdigest())
