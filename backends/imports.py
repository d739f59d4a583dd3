"""Frameworks import packages that training never uses: half of Keras' import, and a quarter of Lightning's.

Keras 3.15 takes in pandas, matplotlib, scikit-learn and, on TensorFlow 2.21, JAX; torchmetrics SciPy's signals and matplotlib:
2 of 4 s and 0.9 of 3.6 s. Each asks first whether they are there. In a process that does nothing but what backends do (the
command, its workers), they are told no. A process of somebody else, say a notebook, is left alone: `keras.Model.fit` takes
data frames only where Keras found pandas when it was imported.

An import makes 300 000 objects that stay. Looking through them for garbage again and again is a fifth of its time, and later each
full collection a pause of 0.2 s; so there is none meanwhile, and in a process of our own none of them is looked at again.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_only_training = False


def only_training() -> None:
    """Say that this process uses frameworks through backends alone. To be called before the first of them is imported."""
    global _only_training
    _only_training = True


@contextmanager
def framework(*unused: str) -> Iterator[None]:
    """For the import of a framework that can do without the packages `unused`."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with without(*unused):
            yield
        if _only_training:
            gc.freeze()
    finally:
        if collecting:
            gc.enable()


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Where `only_training` was called: imports of these packages, in this thread, find none. Those that are loaded stay."""
    hidden = _Hidden(name for name in packages if name not in sys.modules)
    if _only_training:
        sys.meta_path.insert(0, hidden)
    try:
        yield
    finally:
        if hidden in sys.meta_path:
            sys.meta_path.remove(hidden)


class _Hidden(MetaPathFinder):
    """Asked before all other finders, it says of some packages that there are neither modules nor metadata."""

    def __init__(self, packages: Iterator[str]) -> None:
        self.packages, self.thread = frozenset(packages), threading.get_ident()

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Raises ModuleNotFoundError for a hidden one."""
        if self._hides(fullname.partition(".")[0]):
            raise ModuleNotFoundError(f"No module named {fullname!r} (hidden by backends/imports.py meanwhile)", name=fullname)
        return None

    def find_distributions(self, context: Any) -> Iterator[Distribution]:
        """Raises PackageNotFoundError for a hidden one, as importlib.metadata does for one that is absent."""
        if context.name is not None and self._hides(context.name):
            from importlib.metadata import PackageNotFoundError

            raise PackageNotFoundError(context.name)
        return iter(())

    def _hides(self, package: str) -> bool:
        return package in self.packages and threading.get_ident() == self.thread
