"""The plain Optuna way: the real Study object, and a function of one trial, for those who want to drive the search themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import Machine
from backends.weights import layout
from pipelines.project import project_of
from pipelines.search.driver import STUDIES
from pipelines.search.pack import State
from pipelines.search.samplers import rung_epochs
from pipelines.search.space import draw
from pipelines.search.storage import open_storage
from pipelines.search.variants import Variants
from pipelines.search.verdict import judge, worth
from pipelines.search.work import Job, advance, measured
from pipelines.spec import Experiment, trial
from pipelines.stages.folds import alike

if TYPE_CHECKING:
    import optuna


def open_study(name: str, experiment: Experiment, *, project: Path | None = None) -> optuna.Study:
    """The Optuna study of a name, as `deltarule search` keeps it. Raises KeyError if there is none."""
    import optuna

    folder = (project or project_of(Path())) / STUDIES / name
    return optuna.load_study(study_name=name, storage=open_storage(folder, experiment.search.storage))


def objective(experiment: Experiment, *, project: Path | None = None) -> Callable[[Any], float | tuple[float, ...]]:
    """A function for optuna's `study.optimize`: draws from search.space, trains here, and returns the validation value.

    It reports at each rung and raises optuna.TrialPruned where the study's pruner says so; a network that diverges gives NaN,
    which Optuna takes for a failure. The rows are prepared once, below .deltarule/objective. Test rows are not written.
    """
    root = project or project_of(Path())
    variants = Variants(root / ".deltarule" / "objective", root)
    return lambda one: _value(one, experiment, variants)


def _value(one: Any, base: Experiment, variants: Variants) -> float | tuple[float, ...]:
    import optuna

    experiment = base.drawn(draw(one, base).changes)
    variant = variants.of(experiment)
    folds = [trial(experiment, about) for about in variant.about.each]
    seeded = [network.model_copy(update={"seed": network.seed + i}) for i in range(base.search.seeds) for network in folds]
    weights = max(layout(network)[-1].stop for network in folds)
    states = [State() for _ in seeded]
    while True:
        live = [place for place, state in enumerate(states) if state.running]
        until = states[live[0]].progress.get("history", [])
        epoch = len(until) + rung_epochs(base)
        for group in alike(variant.about, [seeded[place] for place in live]):
            places = [live[member] for member in group]
            job = Job(
                experiment.train.backend, Machine("auto", experiment.train.threads), str(variant.folder), measured(base.search),
                tuple(seeded[i] for i in places), tuple(states[i] for i in places), epoch,
            )  # fmt: skip
            for place, state in zip(places, advance(job), strict=True):
                states[place] = state
        found = worth(base, states, weights)
        if len(found.values) == 1:
            one.report(found.values[0], epoch)
        ended = judge(states, found, epoch, one.should_prune if len(base.search.metrics) == 1 else lambda: False)
        if ended is None:
            continue
        if ended.state == "PRUNED":
            raise optuna.TrialPruned(ended.reason)
        if ended.state == "FAIL":
            one.set_user_attr("reason", ended.reason)
            return float("nan")
        return ended.values[0] if len(ended.values) == 1 else ended.values
