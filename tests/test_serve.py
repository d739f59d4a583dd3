"""An exported model, served over HTTP: it takes the rows that `deltarule predict` takes, and refuses those that it refuses."""

from __future__ import annotations

import csv
import http.client
import json
import os
import random
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_new import served

import deltarule
from pipelines.api.predict import predict
from pipelines.data import DataError
from pipelines.export import export

HEADER = ["id", "fee", "joined", "size", "fits", "colour", "seen", "kind"]
COLUMNS = HEADER[1:-1]


def rows(count: int = 120) -> list[list[str]]:
    draw = random.Random(0)
    found = []
    for n in range(count):
        size = "n/a" if n % 9 == 3 else f"{draw.gauss(n % 2, 0.8):.2f}"
        fee = f"${draw.randrange(500, 99_000):,}"
        joined = f"{1 + n % 12}/{1 + n % 28}/{10 + n % 9}"
        colour = draw.choice(["red", "blue", "1"])
        seen = f"{1 + n % 28}/{1 + n % 12}/2024"
        found.append([f"{n:04d}", fee, joined, size, draw.choice(["yes", "no"]), colour, seen, ["one", "two"][n % 2]])
    return found


def write(path: Path, lines: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> deltarule.Run:
    folder = tmp_path_factory.mktemp("served")
    experiment = deltarule.load("params.yaml").override(
        {
            "data.source": str(write(folder / "rows.csv", [HEADER, *rows()])), "data.target": "kind",
            "data.columns": {"id": "ignore", "colour": "categorical"}, "data.missing.markers": ["", "n/a"],
            "data.missing.categorical": "refuse", "train.backend": "reference", "train.epochs": 2, "model.hidden": [4],
        }
    )  # fmt: skip
    run = deltarule.run(experiment, folder / "run")
    export(run.folder, folder / "run/served")
    return run


def told(run: deltarule.Run, lines: list[list[str]], folder: Path) -> list[dict[str, str]]:
    """What `deltarule predict` writes for rows of COLUMNS. Raises DataError."""
    predict(run.model, write(folder / "few.csv", [COLUMNS, *lines]), folder / "answers.csv")
    with (folder / "answers.csv").open(newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]


def post(address: str, content: object, kind: str = "application/json") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=60)
    body = content if isinstance(content, str) else json.dumps(content)
    connection.request("POST", "/invocations", body.encode(), {"Content-Type": kind})
    response = connection.getresponse()
    answer = response.status, response.read().decode()
    connection.close()
    return answer


def split(lines: list[list[object]]) -> dict[str, object]:
    return {"dataframe_split": {"columns": COLUMNS, "data": lines}}


def same(ours: list[dict[str, str]], theirs: tuple[int, str]) -> bool:
    assert theirs[0] == 200, theirs[1]
    found = json.loads(theirs[1])["predictions"]
    assert [row["predicted"] for row in found] == [row["predicted"] for row in ours]
    return [row["p_two"] for row in found] == pytest.approx([float(row["p_two"]) for row in ours], abs=1e-6)


def test_an_exported_model_says_what_its_columns_hold(trained):
    """And not `any`; text where the cells are written in a way of their own."""
    from mlflow.models import get_model_info

    signature = get_model_info(str(trained.folder / "served")).signature
    assert {one.name: (one.type.name, one.required) for one in signature.inputs} == {
        "fee": ("string", False), "joined": ("string", False), "size": ("double", False), "fits": ("boolean", True),
        "colour": ("string", True), "seen": ("string", False),
    }  # fmt: skip


# One cell of a good row, under a name of COLUMNS.
BAD = [
    {"fee": "many"}, {"fee": "€5 $"}, {"size": "big"}, {"size": "1_000"}, {"size": "nan"}, {"size": "NA"}, {"fits": "null"},
    {"size": "inf"}, {"size": "0x1"},
    {"joined": "31/31/14"}, {"joined": "2014-06-16x"}, {"seen": "1/13/2024"}, {"fits": "perhaps"}, {"fits": ""},
    {"colour": "n/a"},
]  # fmt: skip

# A text that is no table -> what is said of it.
HEAD = ",".join(COLUMNS)
NO_TABLES = {
    "": "the file must have a header and rows, found an empty file",
    f"{HEAD}\n5,1/1/14,1,yes,red\n": ":2: every row must have 6 cells as the header has, found 5",
    f"{HEAD}\n5,1/1/14,1,yes,red,1/1/2024,7\n": ":2: every row must have 6 cells as the header has, found 7",
    f'{HEAD}\n5,1/1/14,1,yes,red,"1/1/2024\n': ":2: a quote is opened in this row and never closed",
    f"{HEAD.replace('fee', 'size')}\n5,1/1/14,1,yes,red,1/1/2024\n": "column names must differ, found 'size' in columns 1 and 3",
    f"{HEAD}\n": "no rows",
}


@pytest.mark.slow
def test_a_server_takes_what_predict_takes_and_refuses_what_it_refuses(trained, tmp_path):
    good = [row[1:-1] for row in rows(12)]
    whole = told(trained, good, tmp_path)
    (tmp_path / "few.csv").rename(tmp_path / "good.csv")
    tool = SimpleNamespace(environment=lambda: {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    with served(tool, trained.folder) as address:
        assert same(whole, post(address, split(good)))
        assert same(whole, post(address, {"dataframe_records": [dict(zip(COLUMNS, row, strict=True)) for row in good]}))
        assert same(whole, post(address, (tmp_path / "good.csv").read_text(), "text/csv"))
        values = [
            [float(fee[1:].replace(",", "")), joined, None if size == "n/a" else float(size), fits == "yes", colour, seen]
            for fee, joined, size, fits, colour, seen in good
        ]
        assert same(whole, post(address, split(values)))
        whole_numbers = [[row[0], row[1], 1, *row[3:]] for row in values]
        expected = told(trained, [[row[0], row[1], "1", *row[3:]] for row in good], tmp_path)
        assert same(expected, post(address, split(whole_numbers)))
        for change in BAD:
            lines = [list(row) for row in good]
            [(name, cell)] = change.items()
            lines[3][COLUMNS.index(name)] = cell
            with pytest.raises(DataError, match=r"few\.csv:5: ") as refused:
                told(trained, lines, tmp_path)
            status, answer = post(address, split(lines))
            why = f"row 4: {str(refused.value).partition(': ')[2]}"
            assert status == 400 and why in json.loads(answer)["message"], change
            status, answer = post(address, (tmp_path / "few.csv").read_text(), "text/csv")
            assert status == 400 and why in json.loads(answer)["message"], change
        for text, why in NO_TABLES.items():
            (tmp_path / "bad.csv").write_text(text)
            with pytest.raises(DataError, match=re.escape(why)):
                predict(trained.model, tmp_path / "bad.csv", tmp_path / "answers.csv")
            status, answer = post(address, text, "text/csv")
            assert status == 400 and why in json.loads(answer)["message"], text
        semicolons = "".join(";".join(row) + "\n" for row in [COLUMNS, *good])
        assert same(whole, post(address, "\ufeff" + semicolons, "text/csv"))
        status, answer = post(address, {"dataframe_records": [dict(zip(COLUMNS[1:], good[0][1:], strict=True))]})
        assert status == 400 and "must have the columns of the training rows, found no 'fee'" in answer
