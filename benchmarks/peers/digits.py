"""Rows of digits, as `deltarule split` makes them, and the options that the scripts of this folder share."""

from __future__ import annotations

import argparse

import numpy as np

Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # training and validation: X standardized, y the digit


def options(text: str | None) -> argparse.Namespace:
    """--trials, --seed, --rows."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", required=True, help="an .npz of X, y, X_valid, y_valid: `benchmarks/search.py` makes it")
    return parser.parse_args()


def load(path: str) -> Rows:
    """X float32 (n, 64), y (n,) for training, then for validation."""
    with np.load(path) as saved:
        return saved["X"], saved["y"], saved["X_valid"], saved["y_valid"]
