"""Rows of digits, and the options that the scripts of this folder share.

`benchmarks/search.py` hands over the very rows that `deltarule split` makes; a script that runs alone splits for itself.
"""

from __future__ import annotations

import argparse

import numpy as np

Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # training and validation: X standardized, y the digit


def options(text: str | None) -> argparse.Namespace:
    """--trials, --seed, --rows."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", help="an .npz of X, y, X_valid, y_valid; else digits are split here")
    return parser.parse_args()


def load(path: str | None) -> Rows:
    """X float32 (n, 64), y (n,) for training, then for validation."""
    if path:
        with np.load(path) as saved:
            return saved["X"], saved["y"], saved["X_valid"], saved["y_valid"]
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    X, y = load_digits(return_X_y=True)
    X, X_rest, y, y_rest = train_test_split(X, y, test_size=0.4, stratify=y, random_state=0)
    X_valid, _, y_valid, _ = train_test_split(X_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=0)
    scaler = StandardScaler().fit(X)
    return scaler.transform(X).astype("float32"), y, scaler.transform(X_valid).astype("float32"), y_valid
