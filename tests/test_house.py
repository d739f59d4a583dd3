"""The budgets of docs/design.md hold, and what counts them sees what is beyond."""

from __future__ import annotations

import ast
import re

import house
import pytest

from pipelines.spec import identity

# What a stage imports and does not depend on, and why.
NO_DEPS = {
    "backends/__init__.py": "finds a backend by its name",
    "backends/children.py": "starts processes",
    "backends/errors.py": "holds exceptions",
    "pipelines/__init__.py": "is empty",
    "pipelines/executors.py": "decides where a search is computed, not what",
    "pipelines/project.py": "says where the project is",
    "pipelines/record": "puts on record what the stages wrote",
    "pipelines/redact.py": "takes secrets out of what is recorded",
    "pipelines/report": "draws figures of it",
    "pipelines/spec": "reads params.yaml, which stages depend on by its values; to_trial.py is a dep",
    "pipelines/stages/__init__.py": "names the stages",
    "pipelines/stages/paths.py": "says where outs stand",
    "pipelines/tracking": "sends the record",
}
# Members of a library that open with an underscore, where there is no other way; those that Python documents need no reason.
PRIVATE = {
    (
        "backends/lightning/optimizer.py",
        "_fused_adam_",
    ): "torch has no public step over tensors that are not Parameters; test_lightning",
    ("backends/lightning/optimizer.py", "_fused_adamw_"): "the same",
    ("pipelines/search/trials.py", "_find_sample_id"): "Optuna counts in the storage what a trial's number says; test_search",
}
DOCUMENTED = {"_asdict", "_fields", "_replace", "_exit"}
STARTS = {
    "split": ["pipelines.stages.split"],
    "train": ["pipelines.stages.train", "backends.lightning"],
    "validate": ["pipelines.stages.validate"],
    "test": ["pipelines.stages.test"],
    "search": ["pipelines.search.study", "backends.lightning"],
}


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


def runs(starts: list[str], deps: list[str]) -> set[str]:
    """Files of ours that importing `starts` brings, lazily too, without what NO_DEPS names and only that imports."""
    files = [name for name in house.tracked("*.py") if name.partition("/")[0] in house.PACKAGES]
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in files}
    found, todo = set(), list(starts)
    while todo:
        module = todo.pop()
        name = modules[module]
        if name in found or (not within(name, deps) and within(name, NO_DEPS)):
            continue
        found.add(name)
        tree = WithoutTyping().visit(ast.parse(house.text_of(name)))
        todo += [one for one in house.imported(module, tree, modules) if one in modules]
    return found


class WithoutTyping(ast.NodeTransformer):
    """Takes out what is imported for typing alone."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else self.generic_visit(node)


def within(name: str, places) -> bool:
    """Whether a file is one of `places`, or lies in one."""
    return any(name == place or name.startswith(f"{place}/") for place in places)


@pytest.mark.parametrize("stage", STARTS)
def test_a_stage_depends_on_all_the_code_that_it_runs(stage):
    """dvc.yaml lists the same sources: test_project.py."""
    deps = [dep.replace("{backend}", "backends/lightning") for dep in identity.SOURCES[stage]]
    assert not {name for name in runs(STARTS[stage], deps) if not within(name, deps)}


def private_members(trees: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """(file, name) of each member of a library that opens with one underscore, and of each method that replaces one."""
    nodes = [(name, node) for name, tree in trees.items() for node in ast.walk(tree)]
    own = {node.name for _, node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for _, node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.id for _, node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used = {(name, node.attr) for name, node in nodes if isinstance(node, ast.Attribute)}
    used |= {(name, one.name) for name, node in nodes if isinstance(node, ast.ImportFrom) for one in node.names}
    found = {(name, attr) for name, attr in used if re.match("_[^_]", attr) and attr not in own | DOCUMENTED}
    classes = [
        (name, node)
        for name, node in nodes
        if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Attribute) for b in node.bases)
    ]
    replaced = ((name, method.name) for name, node in classes for method in node.body if isinstance(method, ast.FunctionDef))
    return found | {(name, method) for name, method in replaced if re.match("_[^_]", method)}


def test_private_members_of_libraries_are_those_that_are_listed():
    files = [name for name in house.tracked("*.py") if name.partition("/")[0] in house.PACKAGES]
    found = private_members({name: ast.parse(house.text_of(name)) for name in files})
    assert found == set(PRIVATE)
    planted = "import torch\nfrom mlflow import _secret\nclass A(torch.nn.Module):\n    def _call(self): torch._C()\n"
    assert private_members({"x.py": ast.parse(planted)}) == {("x.py", name) for name in ("_secret", "_call", "_C")}


def test_what_no_stage_depends_on_is_there():
    assert all((house.ROOT / name).exists() for name in NO_DEPS)


def test_the_journeys_of_the_design_are_as_long_as_they_may_be_and_lead_through_files_that_are_there():
    text = (house.ROOT / "docs/design.md").read_text()
    journeys = re.findall(r"at most (\d+) files:\n\n((?:\d+\. .*\n)+)", text)
    assert [int(most) for most, _ in journeys] == [12, 7, 9]
    for most, steps in journeys:
        files = re.findall(r"^\d+\. `(.+?)`", steps, re.MULTILINE)
        assert len(files) == steps.count("\n") <= int(most)
        assert not [name for name in files if not (house.ROOT / name).is_file()]


def test_what_is_added_takes_as_many_files_as_contributing_says():
    text = (house.ROOT / "CONTRIBUTING.md").read_text()
    recipes = re.findall(r"^- \*\*.+?\*\* \((\d) files\):(.+?)(?=^- |\n\n)", text, re.M | re.S)
    found = [(int(count), re.findall(r"`(\w+/[\w/]+\.py)`", text)) for count, text in recipes]
    assert [count for count, _ in found] == [2, 3, 3, 4]
    assert all(len(files) == count and all((house.ROOT / name).is_file() for name in files) for count, files in found)
