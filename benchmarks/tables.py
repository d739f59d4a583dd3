"""Ten dirty tables (tests/dirty_tables.py), from the file to an exported model, beside scikit-learn on the same rows.

Each goes through `deltarule new` with the decisions that stand there, a run of the default network, and `deltarule export`.
The trees (HistGradientBoosting) and the linear model (logistic, ridge) learn from the same inputs of the same training rows.
Shown: accuracy, or R², on the test rows, and two standard errors of the difference to the better one, row by row.

    python benchmarks/tables.py [FILE ...]    all in two minutes on two cores
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn import ensemble, linear_model

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import dirty_tables

import deltarule
from pipelines.export import export
from pipelines.new import create
from pipelines.stages.metrics import decide


def measure(folder: Path, name: str) -> str:
    """A row of the table."""
    decisions = dirty_tables.DECISIONS.get(name, {})
    said = dict(decisions)
    task, target = str(said.pop("data.task", "auto")), dirty_tables.TABLES[name][1]
    made = create(folder / "project", dirty_tables.write(folder, name), [target], task, said)
    spec = deltarule.load(made.folder / "params.yaml", ["tracking.enabled=false"])
    spec = spec.override("data.source", str(made.folder / made.source))
    run = deltarule.run(spec, folder / "run", test=True)
    export(run.folder, folder / "served")
    about = run.model.network.about
    train, test = (about.open(run.places.data, part) for part in ("train", "test"))
    y, outputs = test.y.ravel(), run.model.network.outputs(test.X)
    metric = "accuracy" if about.classes else "R²"
    if about.classes:
        predicted = [decide(about.task, outputs)]
        trees = ensemble.HistGradientBoostingClassifier(random_state=0)
        linear = linear_model.LogisticRegression(max_iter=2000)
    else:
        predicted = [outputs.ravel()]
        trees = ensemble.HistGradientBoostingRegressor(random_state=0)
        linear = linear_model.Ridge()
    predicted += [one.fit(train.X, train.y.ravel()).predict(test.X) for one in (trees, linear)]
    each = [1.0 * (one == y) if about.classes else 1 - (one - y) ** 2 / y.var() for one in predicted]
    ours, *others = found = [float(scores.mean()) for scores in each]
    gap = each[0] - each[1 + int(np.argmax(others))]
    found.append(2 * float(gap.std(ddof=1)) / len(y) ** 0.5)
    verdict = "as good" if ours >= max(others) - found[-1] else "worse than the better"
    verdict = "worse than both" if ours < min(others) else verdict
    numbers = "  ".join(f"{number:7.3f}" for number in found)
    return f"{name:14} {made.found.rows:4}  {len(decisions):9}  {metric:8}  {numbers}  {verdict}"


if __name__ == "__main__":
    print("table          rows  decisions  metric    network    trees   linear   2 s.e.  verdict")
    for table in sys.argv[1:] or dirty_tables.TABLES:
        with tempfile.TemporaryDirectory() as scratch:
            print(measure(Path(scratch), table), flush=True)
