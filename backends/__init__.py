"""Backends: how a network is trained, on whichever framework. Imports NumPy, pydantic and at most one framework."""

from __future__ import annotations

import gc
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from backends.errors import BackendError

if TYPE_CHECKING:
    from backends.base import Backend

__all__ = ["REGISTRY", "BackendError", "check_name", "get", "registered"]

# name -> (module:class, what to install). Another distribution adds its own by the entry point group "deltarule.backends".
REGISTRY: dict[str, tuple[str, str]] = {
    "reference": ("backends.reference:Reference", "deltarule"),
    "lightning": ("backends.lightning:Lightning", "deltarule[lightning]"),
    "keras": ("backends.keras:KerasTensorFlow", "deltarule[keras]"),
    "keras-jax": ("backends.keras:KerasJax", "deltarule[keras-jax]"),
}


def registered() -> dict[str, tuple[str, str]]:
    """Every backend that is known here: our own and those of other distributions."""
    from importlib.metadata import entry_points  # 20 ms, a fifth of what `deltarule --help` takes

    plugins = {e.name: (e.value, e.dist.name if e.dist else e.value) for e in entry_points(group="deltarule.backends")}
    return {**plugins, **REGISTRY}


def check_name(name: str) -> None:
    """Raises BackendError unless a backend of that name is registered. Imports no framework."""
    if name in REGISTRY:  # to look at what others registered reads all installed packages' metadata: 5 to 50 ms
        return
    known = registered()
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(sorted(known))}"
        raise BackendError(f"train.backend must name a registered backend, got {name!r}; {hint}")


def get(name: str) -> Backend:
    """The backend of that name, with its framework imported."""
    check_name(name)
    target, package = REGISTRY.get(name) or registered()[name]
    module, _, attribute = target.partition(":")
    collects = gc.isenabled()
    gc.disable()  # an import makes 300 000 objects that stay: to look for garbage among them is a fifth of its time
    try:
        backend: Backend = getattr(import_module(module), attribute)()
    except ImportError as error:
        raise BackendError(
            f"backend {name!r} is not installed ({error}); install it with: pip install '{package}', "
            "or set train.backend to one that `deltarule backends` lists"
        ) from error
    finally:
        if collects:
            gc.enable()
    return backend
