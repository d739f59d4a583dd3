"""Keras 3. Layers, rules and noise are keras.ops alone (network.py, program.py, noise.py); each engine has a short trainer
(tensorflow.py, jax.py) of the one stack (stack.py).

Keras computes on one engine in a process, fixed when it is imported. So a backend chooses its engine here, before the
first `import keras`, and the others' trainers stay unimported.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from backends.errors import BackendError

if TYPE_CHECKING:
    from backends.keras.jax import KerasJax
    from backends.keras.tensorflow import KerasTensorFlow

__all__ = ["KerasJax", "KerasTensorFlow"]

_ENGINES = {"keras": "tensorflow", "keras-jax": "jax"}  # train.backend -> Keras' name of the engine


def __getattr__(name: str) -> object:
    """The class of that name, with Keras on its engine (PEP 562): only the engine that is asked for is imported."""
    if name == "KerasTensorFlow":
        with chosen_engine("keras"), _without_greetings():
            from backends.keras.tensorflow import KerasTensorFlow
        return KerasTensorFlow
    if name == "KerasJax":
        with chosen_engine("keras-jax"), _without_greetings():
            from backends.keras.jax import KerasJax
        return KerasJax
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def present() -> str:
    """The backend, by its name, whose engine Keras is on, or would be put on here: TensorFlow, or else JAX."""
    loaded = sys.modules.get("keras")
    engine = loaded.config.backend() if loaded else os.environ.get("KERAS_BACKEND")
    known = [backend for backend, of in _ENGINES.items() if engine == of or (not engine and find_spec(of))]
    return known[0] if known else "keras"  # which says what is wrong


@contextmanager
def chosen_engine(backend: str) -> Iterator[None]:
    """A first `import keras` within puts it on the backend's engine. Raises BackendError if it is on another, or is to be.

    Keras reads the variable KERAS_BACKEND when it is imported. It is not left there: processes that this one starts may
    want another engine.
    """
    engine, loaded = _ENGINES[backend], sys.modules.get("keras")
    set_before = "KERAS_BACKEND" in os.environ
    found = loaded.config.backend() if loaded else os.environ.get("KERAS_BACKEND", engine)
    if found != engine:
        where = "Keras is already imported with" if loaded else "KERAS_BACKEND is set to"
        raise BackendError(
            f"train.backend: {backend} needs Keras on {engine}, but {where} {found}; "
            f"start a new process with KERAS_BACKEND={engine}, or without that variable"
        )
    os.environ["KERAS_BACKEND"] = engine
    try:
        yield
    finally:
        if not set_before:
            del os.environ["KERAS_BACKEND"]


_GREETING = re.compile(rb"^[IW]\d{4} |^WARNING: All log messages before absl::InitializeLog")


@contextmanager
def _without_greetings() -> Iterator[None]:
    """TensorFlow 2.21 logs while it is imported, before it reads TF_CPP_MIN_LOG_LEVEL; errors still come through."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # 2 still reports a missing GPU as an error
    try:
        shown = os.dup(2)
    except OSError:  # no standard error, so nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(shown, 2)
            os.close(shown)
            caught.seek(0)
            sys.stderr.write(b"".join(line for line in caught if not _GREETING.match(line)).decode(errors="replace"))
