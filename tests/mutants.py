"""Faults drawn from a seed: `make mutants SEED=... FAULTS=40`, or `python tests/mutants.py --seed 0 --faults 40`.

Each is one expression of the source changed (an operator, a comparison, a number, two arguments, a term that is dropped, a
condition), in a copy of the repository, where the quickest tests run until one kills it. EQUIVALENT explains what none can.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import house

# Where faults are drawn, and the tests that may kill one, the quickest first.
TESTS = {
    "backends/reference/delta.py": "reference activations",
    "backends/reference/stack.py": "reference supervisor conformance_cases",
    "backends/lightning/network.py": "lightning",
    "backends/lightning/optimizer.py": "lightning",
    "backends/lightning/stack.py": "lightning",
    "backends/lightning/batches.py": "lightning ddp",
    "backends/keras/network.py": "keras keras_jax",
    "backends/keras/program.py": "keras keras_jax",
    "backends/keras/tensorflow.py": "keras",
    "backends/keras/jax.py": "keras_jax",
    "backends/activations.py": "activations reference",
    "backends/base.py": "backends supervisor reference keras",
    "backends/draws.py": "draws weights",
    "backends/losses.py": "class_weights reference supervisor",
    "backends/optimizers.py": "reference",
    "backends/spec.py": "supervisor spec reference",
    "backends/supervisor.py": "supervisor folds",
    "backends/weights.py": "weights folds",
    "pipelines/stages/folds.py": "folds",
    "pipelines/stages/metrics.py": "metrics",
}
# (file, what stood there, what it became): why no test can see it.
EQUIVALENT = {
    ("pipelines/stages/metrics.py", "200000", "200001"): "memory alone: each resample has a stream of its own",
}
OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
SYMMETRIC = ("min", "max", "minimum", "maximum")
UNSEEN = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.AnnAssign, ast.arguments)


def sites(node: ast.AST) -> Iterator[ast.expr]:
    """Expressions that compute something."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, UNSEEN) and child is not getattr(node, "returns", None):
            yield from sites(child)
            if isinstance(child, ast.expr):
                yield child


def faults(node: ast.expr) -> Iterator[ast.expr]:
    """What an expression may become."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in OTHER and not isinstance(left, ast.Constant):
            yield ast.BinOp(left, OTHER[type(op)](), right)
            if isinstance(op, ast.Add | ast.Sub):
                yield left
        case ast.Compare(left, [op], right) if type(op) in OTHER:
            yield ast.Compare(left, [OTHER[type(op)]()], right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(OTHER[type(op)](), values)
            yield values[0]
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield operand
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield ast.Constant(value + 1 if isinstance(value, int) else value * 1.01)
        case ast.Call(function, [first, second, *rest], _) if ast.unparse(function).rpartition(".")[2] not in SYMMETRIC:
            swapped = copy.deepcopy(node)
            swapped.args = [second, first, *rest]
            yield swapped
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)


def draw(seed: int, count: int) -> Iterator[tuple[str, int, str, str, str]]:
    """(file, line, what stands there, what it becomes, the source with the fault), of one seed always the same."""
    source = random.Random(seed)
    seen = set()
    while len(seen) < count:
        file = source.choice([*TESTS])
        text = house.text_of(file)
        node, fault = source.choice([(node, fault) for node in sites(ast.parse(text)) for fault in faults(node)])
        lines = text.encode().splitlines(keepends=True)
        before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
        after = lines[(node.end_lineno or 0) - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
        became = ast.unparse(ast.fix_missing_locations(fault))
        if (file, node.lineno, node.col_offset, became) not in seen:
            seen.add((file, node.lineno, node.col_offset, became))
            yield file, node.lineno, ast.unparse(node), became, before.decode() + f"({became})" + after.decode()


def failing(folder: Path, tests: list[str]) -> str:
    """The test that fails first, or ""."""
    environment = os.environ | {"PYTHONPATH": str(folder), "DELTARULE_COLD": "1", "OMP_NUM_THREADS": "1"}
    for test in tests:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--timeout", "300", test]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
            return failed[0].partition(" ")[2].partition(" - ")[0] if failed else test
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=40)
    options = parser.parse_args()
    survived = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in house.tracked():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(house.ROOT / name, folder / name, follow_symlinks=False)
        for number, (file, line, was, became, text) in enumerate([*draw(options.seed, options.faults)], 1):
            place = folder / file
            sound = place.read_text(encoding="utf-8")
            place.write_text(text, encoding="utf-8")
            by = failing(folder, [f"tests/test_{name}.py" for name in TESTS[file].split()])
            place.write_text(sound, encoding="utf-8")
            if by and failing(folder, [by]):
                sys.exit(f"{by} fails without any fault")
            by = by or EQUIVALENT.get((file, was, became), "")
            survived += not by
            print(f"{number}/{options.faults} {file}:{line}: {was}  ->  {became}\n    {by or 'SURVIVED'}", flush=True)
    print(f"seed {options.seed}: {survived} of {options.faults} faults survived")
    return survived > 0


if __name__ == "__main__":
    sys.exit(main())
