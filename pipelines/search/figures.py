"""The figures of a study in its folder, figures/: Optuna draws them, in our look, from what trials.csv and study.json hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.weights import write_atomically

if TYPE_CHECKING:
    from optuna import Study
    from optuna.importance import BaseImportanceEvaluator
    from optuna.trial import FrozenTrial

FIGURES = "figures"
KEYS = 7  # in one figure, the most important; more could not be read


def draw_study(folder: Path, study: Study, metrics: Sequence[str], importances: Mapping[str, float]) -> list[Path]:
    """Draw a study; the paths written. Same trials, same bytes.

    What there is nothing of is removed. `importances` choose which keys come first; {} is as good as any.
    """
    from pipelines.report import style

    made = {}
    counts = Counter(trial.state.name.lower() for trial in study.get_trials(deepcopy=False))
    title = f"Study {study.study_name}: {', '.join(f'{count} {state}' for state, count in sorted(counts.items()))}"
    with style.optunas():
        for name, axes in _drawn(study, metrics, importances):
            drawing = np.ravel(axes)[0].figure
            drawing.suptitle(title, y=1.02)
            made[f"{name}.png"] = style.png(drawing)
    for file, content in made.items():
        write_atomically(folder / FIGURES / file, content)
    for stale in {*(folder / FIGURES).glob("*.png")} - {folder / FIGURES / file for file in made}:
        stale.unlink()
    return [folder / FIGURES / file for file in made]


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
    first: dict[str, Any] = {"target": (lambda trial: trial.values[0]) if several else None, "target_name": metrics[0]}
    if keys := _by_importance(done, importances):
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


def _by_importance(done: Sequence[FrozenTrial], importances: Mapping[str, float]) -> list[str]:
    """The names that were drawn with more than one value, the most important first."""
    values: dict[str, set[Any]] = {}
    for name, value in (drawn for trial in done for drawn in trial.params.items()):
        values.setdefault(name, set()).add(value)
    several = [name for name, found in values.items() if len(found) > 1]
    return sorted(several, key=lambda name: (-importances.get(name, 0.0), name))


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
        def evaluate(
            self, study: Study, params: list[str] | None = None, *, target: Callable[[FrozenTrial], float] | None = None
        ) -> dict[str, float]:
            return dict(importances)

    return Known()
