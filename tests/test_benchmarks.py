"""The benchmarks begin: what they take from the packages is there."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def module(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("name", ["data", "search", "steps", "tracking"])  # tables.py is run by tests/test_tables.py
def test_a_benchmark_says_what_it_does(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module(name).main()
    assert ended.value.code == 0 and "--" in capsys.readouterr().out


def test_the_rows_of_the_peers_are_those_of_the_split(tmp_path):
    rows = np.load(module("search").make_rows(tmp_path))
    assert rows["X"].shape == (1078, 64) and rows["X_valid"].shape == (360, 64) and len(rows["y"]) == 1078
