"""How much each searched key matters: the share of the variance of the first metric that it accounts for alone.

Functional ANOVA (Hutter, Hoos & Leyton-Brown 2014) as Optuna has it, over the completed trials. It needs every key in every
trial: a key that a condition left out stands there with the middle of its drawn values, so that the absence itself counts
for the key that decided it ("regularization.l1 or"), which is drawn always. Optuna weighs a range evenly even where values are
drawn by their logarithm, which hides a learning rate: such a key goes in as its logarithm.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

FEWEST = 8  # trials: of fewer, a forest says nothing
TREES, DEPTH, SEED = 32, 6, 0  # 64 leaves a tree: without the limit 700 trials take 23 s, with it 1 to 2


def importances(study: Study) -> dict[str, float]:
    """Name drawn ("model.dropout", "regularization.l1 or") -> share in [0, 1], the greatest first; they add up to 1.

    {} with fewer than 8 completed trials, or where nothing differs. The same trials give the same shares.
    """
    from optuna.trial import TrialState

    done = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if math.isfinite(t.values[0])]
    space = _space(done)
    if len(done) < FEWEST or len({t.values[0] for t in done}) < 2 or not space:
        return {}
    if len(space) == 1:
        return dict.fromkeys(space, 1.0)
    found = _evaluate(done, space)
    shares = {name: round(float(found[name]), 6) for name in space}  # a library's last bits are no finding
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0]))) if any(shares.values()) else {}


def _space(done: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """The names that were drawn with more than one value, in a fixed order, and what they were drawn from."""
    known = {name: distribution for trial in done for name, distribution in trial.distributions.items()}
    return {name: known[name] for name in sorted(known) if len({repr(t.params[name]) for t in done if name in t.params}) > 1}


def _evaluate(done: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution]) -> dict[str, float]:
    from optuna import create_study, importance
    from optuna.trial import create_trial

    from pipelines.search.mirror import quiet

    middle = {name: _middle([t.params[name] for t in done if name in t.params]) for name in space}
    even = {name: _evenly(distribution) for name, distribution in space.items()}
    with quiet():
        whole = create_study()
        for trial in done:
            drawn = {name: trial.params.get(name, middle[name]) for name in space}
            params = {name: math.log(value) if _by_log(space[name]) else value for name, value in drawn.items()}
            whole.add_trial(create_trial(params=params, distributions=even, value=trial.values[0]))
        evaluator = importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=SEED)
        return importance.get_param_importances(whole, evaluator=evaluator)


def _by_log(distribution: BaseDistribution) -> bool:
    return bool(getattr(distribution, "log", False))


def _evenly(distribution: BaseDistribution) -> BaseDistribution:
    """The same range on the scale on which it is drawn evenly."""
    from optuna.distributions import FloatDistribution

    if not _by_log(distribution):
        return distribution
    low, high = (math.log(getattr(distribution, end)) for end in ("low", "high"))
    return FloatDistribution(low, high)


def _middle(values: Sequence[Any]) -> Any:
    """The middle one of numbers, else the most frequent; one that was drawn in any case."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return sorted(values)[len(values) // 2]
    return Counter(values).most_common(1)[0][0]
