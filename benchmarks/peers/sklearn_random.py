"""scikit-learn's RandomizedSearchCV over MLPClassifier on one validation part, in two processes. No dropout, L1 or MLflow.

Prints the best validation cross-entropy as JSON. Alone: python benchmarks/peers/sklearn_random.py --trials 8
"""

from __future__ import annotations

import json
import os
import warnings

os.environ["PYTHONWARNINGS"] = "ignore"  # of its processes: that 30 epochs are too few to converge

import digits
import numpy as np
from scipy.stats import loguniform
from sklearn.model_selection import PredefinedSplit, RandomizedSearchCV
from sklearn.neural_network import MLPClassifier

EPOCHS, BATCH = 30, 32


def main() -> None:
    """The search, refit left out."""
    chosen = digits.options(__doc__)
    warnings.filterwarnings("ignore")
    X, y, X_valid, y_valid = digits.load(chosen.rows)
    part = np.repeat([-1, 0], [len(X), len(X_valid)])  # -1: only ever trained on
    net = MLPClassifier((128, 64), batch_size=BATCH, max_iter=EPOCHS, n_iter_no_change=EPOCHS, tol=0.0, random_state=chosen.seed)
    # MLPClassifier's penalty is alpha/2 · ΣW², divided by the rows of a batch: alpha = 2 · 32 · λ2.
    space = {"activation": ["relu", "tanh", "logistic"], "alpha": loguniform(64e-6, 64e-2)}
    search = RandomizedSearchCV(net, space, n_iter=chosen.trials, scoring="neg_log_loss", cv=PredefinedSplit(part), refit=False,
                                n_jobs=2, random_state=chosen.seed)  # fmt: skip
    search.fit(np.concatenate([X, X_valid]), np.concatenate([y, y_valid]))
    print(json.dumps({"best": -float(search.best_score_)}))


if __name__ == "__main__":
    main()
