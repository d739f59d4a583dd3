"""The table of docs/your-own-data.md says what benchmarks/tables.py prints, and that it is enough."""

from __future__ import annotations

import re

import dirty_tables
import pytest
from conftest import PYTHON, ROOT, call

CHEAP = ["colic.csv", "titanic.csv"]


def table(text: str) -> dict[str, list[str]]:
    """file -> rows, decisions, metric, network, trees, linear, two standard errors, verdict."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if re.match(r"\s*\w+\.(csv|tsv|parquet)\s", line)]
    return {line[0].split()[0]: [*line[0].split()[1:], *line[1:]] for line in lines}


@pytest.fixture(scope="module")
def shown() -> dict[str, list[str]]:
    return table((ROOT / "docs/your-own-data.md").read_text())


def test_seven_of_ten_tables_reach_the_better_model_and_none_falls_below_the_worse(shown):
    assert [*shown] == [*dirty_tables.TABLES]
    verdicts = [row[-1] for row in shown.values()]
    assert verdicts.count("as good") >= 7 and "worse than both" not in verdicts
    assert all(int(row[1]) == len(dirty_tables.DECISIONS.get(name, ())) <= 3 for name, row in shown.items())


@pytest.mark.slow
def test_the_command_prints_what_the_page_shows(shown):
    printed = table(call(PYTHON, "benchmarks/tables.py", *CHEAP, cwd=ROOT).stdout)
    assert [*printed] == CHEAP
    for name, row in printed.items():
        assert row[:3] == shown[name][:3] and row[-1] == shown[name][-1]
        # Another processor may round otherwise.
        assert [float(number) for number in row[3:-1]] == pytest.approx([float(n) for n in shown[name][3:-1]], abs=0.03)
