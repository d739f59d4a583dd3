"""Imports point one way, heavy libraries have one home each, and the command line loads none of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch", "lightning", "pytorch_lightning", "keras", "tensorflow", "jax", "mlflow", "optuna", "sklearn", "pandas",
    "matplotlib", "ray", "onnx", "onnxruntime",
}  # fmt: skip
# What may import what, by height: a module imports from its own height or from below.
HEIGHTS = [
    {"backends"},
    {"pipelines.executors", "pipelines.given", "pipelines.preload", "pipelines.project", "pipelines.redact", "pipelines.spec"},
    {f"pipelines.{name}" for name in ("data", "tracking", "report", "console")},
    {"pipelines.stages", "pipelines.export"},
    {"pipelines.record"},
    {"pipelines.search"},
    {"pipelines.check", "pipelines.compare", "pipelines.new"},
    {"pipelines.api", "pipelines.results", "deltarule"},
    {"pipelines.cli", "_deltarule"},
]
# What each package of backends/ may use besides the standard library and COMMON: its one framework.
COMMON = {"numpy", "pydantic", "safetensors", "backends"}
FRAMEWORKS = {
    "backends.lightning": {"torch", "pytorch_lightning", "lightning_fabric"},
    "backends.keras.jax": {"keras", "jax"},
    "backends.keras": {"keras", "tensorflow"},
    "backends.conformance": {"pytest"},
}
# Which module, or package, alone may import a library.
HOMES = {
    "mlflow": "pipelines.tracking", "optuna": "pipelines.search", "matplotlib": "pipelines.report", "ray": "pipelines.executors",
    "onnx": "pipelines.export.onnx", "onnxruntime": "pipelines.export.onnx", "jinja2": "pipelines.report",
}  # fmt: skip
# For typing alone: what open_study returns is Optuna's own; and MLflow's entry point, which must not import `pipelines`.
NAMED = {("deltarule", "optuna"), ("_deltarule", "mlflow")}


def sources() -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module of ours."""
    files = [*ROOT.glob("*.py"), *(ROOT / "backends").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]
    for file in sorted(files):
        parts = file.relative_to(ROOT).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), file


def imports(name: str, file: Path, lazily: bool = True) -> Iterator[str]:
    """Full dotted names a module imports, in functions and for typing too; without `lazily`, when it is imported itself."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node in _nodes(ast.parse(file.read_text()), lazily):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _nodes(tree: ast.AST, lazily: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if not lazily and (_only_for_types(child) or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
            continue
        yield child
        yield from _nodes(child, lazily)


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def height(name: str) -> int | None:
    """Where a module of ours stands; None for a library."""
    for level, group in enumerate(HEIGHTS):
        if any(name == member or name.startswith(f"{member}.") for member in group):
            return level
    return None


MODULES = dict(sources())
BACKENDS = [name for name in MODULES if name.split(".")[0] == "backends"]
by_module = pytest.mark.parametrize("name", [name for name in MODULES if name != "pipelines"])
by_backend_module = pytest.mark.parametrize("name", BACKENDS)


@by_module
def test_imports_point_one_way(name):
    own = height(name)
    assert own is not None, f"{name} stands nowhere in HEIGHTS"
    above = [found for found in imports(name, MODULES[name]) if (height(found) or 0) > own]
    assert not above, f"{name} imports from above itself: {above}"


@by_backend_module
def test_a_backend_imports_numpy_pydantic_safetensors_and_its_one_framework(name):
    framework = next((libraries for package, libraries in FRAMEWORKS.items() if name.startswith(package)), set())
    found = {full.split(".")[0] for full in imports(name, MODULES[name])} - set(sys.stdlib_module_names)
    assert found <= COMMON | framework


@by_module
def test_a_heavy_library_has_one_home(name):
    for library, home in HOMES.items():
        if (name, library) not in NAMED and any(full.split(".")[0] == library for full in imports(name, MODULES[name])):
            assert name == home or name.startswith(f"{home}."), f"{name} imports {library}, whose home is {home}"


@by_backend_module
def test_backends_load_safetensors_only_when_they_need_it(name):
    at_once = {full.split(".")[0] for full in imports(name, MODULES[name], lazily=False)}
    assert "safetensors" not in at_once


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["pipelines.cli", "deltarule"])
def test_importing_the_command_line_loads_nothing_heavy(module):
    loaded = set(python(f"import sys, {module}; print(*sys.modules)").split())
    assert not loaded & HEAVY


def test_the_command_line_loads_neither_numpy_nor_pydantic_before_it_knows_the_command():
    loaded = set(python("import sys, pipelines.cli; print(*sys.modules)").split())
    assert not loaded & {"numpy", "pydantic", "ruamel", "rich.table", "dvc"}


def test_reading_a_spec_loads_nothing_heavy():
    loaded = set(python("import sys, pipelines.spec as s; s.load('params.yaml'); print(*sys.modules)").split())
    assert not loaded & HEAVY


# Lets the standard library, numpy, pydantic and what those two bring be imported, and nothing else.
ONLY_NUMPY_AND_PYDANTIC = """
import sys
ALLOWED = {"numpy", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection", "backends"}
class Block:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named {top!r} (blocked)", name=top)
sys.meta_path.insert(0, Block())
"""


def test_backends_train_where_only_numpy_and_pydantic_are_installed():
    out = python(
        ONLY_NUMPY_AND_PYDANTIC
        + """
import numpy as np, backends
from backends.base import Data
from backends.spec import Trial
from backends.supervisor import fit
X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
trial = Trial(seed=1, task="binary", inputs=3, outputs=1, model={"hidden": [4]}, train={"backend": "reference", "epochs": 2})
[result] = fit(backends.get("reference"), [trial], Data(X, y, X, y))
print(result.reason, len(result.history))
"""
    )
    assert out.split() == ["completed", "2"]


@pytest.mark.parametrize("name", ["lightning", "keras", "keras-jax"])
def test_a_backend_that_is_not_installed_says_what_to_install(name):
    out = python(
        ONLY_NUMPY_AND_PYDANTIC
        + f"""
import backends
try:
    backends.get({name!r})
except backends.BackendError as error:
    print(error)
"""
    )
    assert f"pip install 'deltarule[{name}]'" in out
