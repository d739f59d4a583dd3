"""The figures of a study in its folder, figures/: Optuna draws them, in our look; and how much each key matters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median_high, mode
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.weights import write_atomically
from pipelines.search.trials import quiet

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.importance import BaseImportanceEvaluator
    from optuna.trial import FrozenTrial

FIGURES = "figures"
KEYS = 7  # in one figure, the most important; more could not be read
FEWEST = 8  # trials: of fewer, a forest says nothing of what matters
TREES, DEPTH, SEED = 32, 6, 0  # 64 leaves a tree: without the limit 700 trials take 23 s, with it 1 to 2


def draw_study(folder: Path, study: Study, metrics: Sequence[str], importances: Mapping[str, float]) -> list[Path]:
    """Draw a study; the paths written. Same trials, same bytes.

    What there is nothing of is removed. `importances` choose which keys come first; {} is as good as any.
    """
    from pipelines.report import style

    made: dict[Path, bytes] = {}
    counts = Counter(trial.state.name.lower() for trial in study.get_trials(deepcopy=False))
    title = f"Study {study.study_name}: {', '.join(f'{count} {state}' for state, count in sorted(counts.items()))}"
    with style.optunas():
        for name, axes in _drawn(study, metrics, importances):
            drawing = np.ravel(axes)[0].figure
            drawing.suptitle(title, y=1.02)
            made[folder / FIGURES / f"{name}.png"] = style.png(drawing)
    for path, content in made.items():
        write_atomically(path, content)
    for stale in {*(folder / FIGURES).glob("*.png")} - made.keys():
        stale.unlink()
    return [*made]


def _drawn(study: Study, metrics: Sequence[str], importances: Mapping[str, float]) -> Iterator[tuple[str, Any]]:
    """(name, what Optuna returns: one panel or an array of them)."""
    from optuna.visualization import matplotlib as plots

    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    several = len(metrics) > 1
    for place, metric in enumerate(metrics if done else ()):
        target = (lambda trial, at=place: trial.values[at]) if several else None
        panel = plots.plot_optimization_history(study, target=target, target_name=metric)
        if not several:
            _pruned(panel, study)
        yield f"history{f'_{metric}' if place else ''}", panel
    value = (lambda trial: trial.values[0]) if several else None
    first: dict[str, Any] = {"target": value, "target_name": metrics[0]}
    if keys := sorted(_varied(done), key=lambda name: (-importances.get(name, 0.0), name)):
        yield "slice", plots.plot_slice(study, keys[:KEYS], **first)
        yield "parallel", _wide(plots.plot_parallel_coordinate(study, keys[:KEYS], **first))
    if pair := _pair(done, keys):
        yield "contour", plots.plot_contour(study, pair, **first)
    if importances and done:
        yield "importances", plots.plot_param_importances(study, _known(importances), **first)
    if several and done:
        some: dict[str, Any] = {"targets": lambda trial: trial.values[:3]} if len(metrics) > 3 else {}
        yield "pareto", plots.plot_pareto_front(study, target_names=list(metrics[:3]), **some)


def _wide(panel: Any) -> Any:
    """With room for the ticks of each axis."""
    sides = panel.figure.axes[:-1]  # and the colour bar
    panel.figure.set_size_inches(3 + 1.5 * len(sides), 4.8)
    for side in sides:
        side.grid(False)
    return panel


def _pruned(panel: Any, study: Study) -> None:
    """Trials without a value, at the best that they came to."""
    best = min if study.direction.name == "MINIMIZE" else max
    seen = {
        trial.number: best(trial.intermediate_values.values())
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name == "PRUNED" and trial.intermediate_values
    }
    if seen:
        panel.scatter(list(seen), list(seen.values()), facecolors="none", edgecolors="#E69F00", label="pruned, best so far")
        panel.legend(bbox_to_anchor=(1.05, 1.0), loc="upper left")


def _varied(done: Sequence[FrozenTrial]) -> dict[str, list[Any]]:
    """Of each name that was drawn with more than one value, all of them."""
    names = sorted({name for trial in done for name in trial.params})
    values = {name: [trial.params[name] for trial in done if name in trial.params] for name in names}
    return {name: found for name, found in values.items() if len({*map(repr, found)}) > 1}


def _pair(done: Sequence[FrozenTrial], keys: Sequence[str]) -> list[str] | None:
    """A penalty and a dropout if both were searched, else the two numbers that matter most, if any."""
    numbers = [key for key in keys if not any(isinstance(trial.params.get(key), str | bool) for trial in done)]
    penalty = next((key for key in numbers if key.startswith("regularization.")), None)
    dropout = next((key for key in numbers if "dropout" in key), None)
    if penalty and dropout:
        return [penalty, dropout]
    return numbers[:2] if len(numbers) > 1 else None


def _known(importances: Mapping[str, float]) -> BaseImportanceEvaluator:
    """What was found before: the figure shows the numbers that stand beside it."""
    from optuna.importance import BaseImportanceEvaluator

    class Known(BaseImportanceEvaluator):
        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            return dict(importances)

    return Known()


# -- how much each key matters --


def importances(study: Study) -> dict[str, float]:
    """Name drawn ("model.dropout", "regularization.l1 or") -> its share of the variance of the first metric.

    The greatest first; they add up to 1. {} with fewer than 8 completed trials, or where nothing differs.

    Functional ANOVA (Hutter, Hoos & Leyton-Brown 2014) as Optuna has it. It needs every key in every trial: one that was not
    drawn stands there with the middle of its values, so that the absence itself counts for the key that decided it
    ("regularization.l1 or"), which is drawn always. A key that is drawn by its logarithm goes in as that.
    """
    from optuna import create_study, importance
    from optuna.trial import TrialState, create_trial

    done = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if math.isfinite(t.values[0])]
    drawn = {name: _middle(values) for name, values in _varied(done).items()}  # for trials that lack it
    kinds = {name: kind for trial in done for name, kind in trial.distributions.items()}
    if len(done) < FEWEST or len({t.values[0] for t in done}) < 2 or not drawn:
        return {}
    if len(drawn) == 1:
        return dict.fromkeys(drawn, 1.0)
    with quiet():
        whole = create_study()
        for trial in done:
            params, spaces = {}, {}
            for name, middle in drawn.items():
                params[name], spaces[name] = _evenly(trial.params.get(name, middle), kinds[name])
            whole.add_trial(create_trial(params=params, distributions=spaces, value=trial.values[0]))
        evaluator = importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=SEED)
        found = importance.get_param_importances(whole, evaluator=evaluator)
    shares = {name: round(float(found[name]), 6) for name in drawn}  # a library's last bits are no finding
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0]))) if any(shares.values()) else {}


def _evenly(value: Any, kind: BaseDistribution) -> tuple[Any, BaseDistribution]:
    """A value and its range as drawn: Optuna weighs a range evenly, which would hide a learning rate."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(kind, FloatDistribution | IntDistribution) and kind.log:
        return math.log(value), FloatDistribution(math.log(kind.low), math.log(kind.high))
    return value, kind


def _middle(values: Sequence[Any]) -> Any:
    """The middle one of numbers, else the most frequent; one that was drawn in any case."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return median_high(values) if numbers else mode(values)
