"""The budgets of docs/design.md hold, and what counts them sees what is beyond."""

from __future__ import annotations

import ast

import house
import pytest


@pytest.mark.parametrize(("what", "there", "most"), list(house.look()), ids=lambda one: one if isinstance(one, str) else "")
def test_a_budget_holds(what, there, most):
    assert there <= most, f'{what}: {there:g} of {most:g}; docs/design.md, "The house"'


def test_a_circle_is_seen_however_it_is_hidden():
    texts = {
        "backends/a.py": "def f():\n    from backends.b import g\n",
        "backends/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .c import h\n",
        "backends/c.py": "import backends.a\nimport tests.conftest\n",
    }
    found = {what: there for what, there, _ in house.imports({name: ast.parse(text) for name, text in texts.items()})}
    assert found["circles of imports backends.a, backends.b, backends.c"] == 1
    assert [there for what, there in found.items() if "backends.c imports tests.conftest" in what] == [1]
