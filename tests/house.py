"""How the house stands against the budgets of docs/design.md: `python tests/house.py` prints it, and fails beyond.

Lines of Python outside tests, docs and examples; circles of imports, of which those for typing and in functions count; folders,
modules, functions. A budget that is still above the aim of design.md is lowered as the code shrinks, and never raised.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = {"backends": 5_547, "pipelines": 21_282, "benchmarks": 1_000, "all": 28_085}  # aim: 5 000, 13 500, 1 000, 20 000
OTHER_CODE = 500  # lines of templates, SQL, JavaScript, shell
CHARACTERS_A_LINE = 46.0
FORMAT_SKIPS = 50
MODULE_LINES = 450
FUNCTION_LINES = 60
FILES_A_FOLDER = 12
OUTSIDE = ("tests", "docs", "examples", "benchmarks")  # what the packages import nothing from
PACKAGES = ("backends", "pipelines")


def tracked(*patterns: str) -> list[str]:
    """Files that git has or would take, below ROOT."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def imported(name: str, tree: ast.Module, modules: dict[str, str]) -> set[str]:
    """Modules of `modules`, or names as they are written, that a module imports: at once, in a function, or for typing."""
    package = name if modules[name].endswith("__init__.py") else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            whole = {f"{base}.{alias.name}" for alias in node.names}
            found |= {one if one in modules else base for one in whole}
    return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that import one another, by whatever way: strongly connected components (Tarjan 1972) of two or more."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(one: str) -> None:
        index[one] = low[one] = len(index)
        stack.append(one)
        for other in edges[one]:
            if other not in index:
                visit(other)
                low[one] = min(low[one], low[other])
            elif other in stack:
                low[one] = min(low[one], index[other])
        if low[one] == index[one]:
            place = stack.index(one)
            component = stack[place:]
            del stack[place:]
            if len(component) > 1:
                found.append(sorted(component))

    for one in edges:
        if one not in index:
            visit(one)
    return found


def look() -> Iterator[tuple[str, float, float]]:
    """(what, how much there is, how much there may be) of everything that is counted; circles and wrong imports may be 0."""
    files = [name for name in tracked("*.py") if name.partition("/")[0] not in ("tests", "docs", "examples")]
    texts = {name: text_of(name) for name in files}
    lines = {name: text.count("\n") for name, text in texts.items()}
    for place, most in LINES.items():
        yield f"lines of {place}", sum(n for name, n in lines.items() if place in ("all", name.partition("/")[0])), most
    other = [name for name in tracked("*.sql", "*.js", "*.sh", "*.html", "*.j2") if not name.startswith(("tests/", "docs/"))]
    yield "lines of other code", sum(text_of(name).count("\n") for name in other), OTHER_CODE
    yield "characters a line", round(sum(map(len, texts.values())) / sum(lines.values()), 2), CHARACTERS_A_LINE
    yield "fmt: skip", sum(text.count("fmt: skip") for text in texts.values()), FORMAT_SKIPS
    longest = max(lines, key=lambda name: lines[name])
    yield f"lines of the longest module, {longest}", lines[longest], MODULE_LINES
    trees = {name: ast.parse(text) for name, text in texts.items()}
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [(name, node) for name, tree in trees.items() for node in ast.walk(tree) if isinstance(node, kinds)]
    long = sorted(((node.end_lineno or 0) - node.lineno + 1, f"{node.name} in {name}") for name, node in functions)
    lengths = [length for length, _ in long]
    yield f"lines of the longest function, {long[-1][1]}", lengths[-1], FUNCTION_LINES
    yield "lines of nine functions of ten", lengths[int(0.9 * len(lengths))], 18
    yield "lines of the median function", statistics.median(lengths), 15
    folders = Counter(str(Path(name).parent) for name in files if name.partition("/")[0] in PACKAGES)
    for folder, count in folders.items():
        if count > FILES_A_FOLDER:
            yield f"files in {folder}", count, FILES_A_FOLDER
    yield from imports(trees)


def imports(trees: dict[str, ast.Module]) -> Iterator[tuple[str, float, float]]:
    """Circles between modules of the packages, and imports from outside them."""
    ours = [name for name in trees if name.partition("/")[0] in PACKAGES]
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in ours}
    edges = {module: imported(module, trees[name], modules) - {module} for module, name in modules.items()}
    found = circles({module: {other for other in others if other in modules} for module, others in edges.items()})
    yield f"circles of imports {'; '.join(', '.join(one) for one in found)}".strip(), len(found), 0
    wrong = [f"{module} imports {one}" for module, others in edges.items() for one in others if one.partition(".")[0] in OUTSIDE]
    yield f"imports from {', '.join(OUTSIDE)} {'; '.join(wrong)}".strip(), len(wrong), 0


if __name__ == "__main__":
    counted = list(look())
    for what, there, most in counted:
        print(f"{what:60} {there:8g} of {most:g}{'' if there <= most else '   TOO MANY'}")
    sys.exit(any(there > most for _, there, most in counted))
