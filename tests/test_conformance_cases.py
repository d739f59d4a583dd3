"""The covering list of the conformance suite: every pair is in it, and its words mean what they say."""

import numpy as np
import pytest

from backends.conformance.cases import (
    ALL_LEVELS,
    COVERING_LIST,
    FREE,
    NEVER,
    STACKS,
    STRUCTURE,
    STRUCTURES,
    all_pairs,
    cases,
    pairs_of,
    pairwise,
)
from backends.conformance.compare import course


def test_every_two_levels_of_any_two_factors_meet_in_a_case():
    met = {pair for case in COVERING_LIST for pair in pairs_of(case)}
    assert met == set(all_pairs({**FREE, **STRUCTURE})) - NEVER
    assert len(COVERING_LIST) < 100  # all combinations would be 7 776 000


def test_a_pair_that_no_partial_case_allows_is_refused():
    factors = {"one": "ab", "other": "xy", "third": "mn"}
    assert len(pairwise(factors)) == 4
    with pytest.raises(ValueError, match="none of the 1 partial cases may have"):
        pairwise(factors, [{"one": "a"}])


def test_every_case_is_in_a_stack_and_every_level_in_one_of_the_float32_stacks():
    stacks = [cases(number).trials for number in range(len(STRUCTURES))]
    assert sum(len(stack) for stack in stacks) == len(COVERING_LIST)
    assert all(len({trial.structure() for trial in stack}) == 1 < len(stack) for stack in stacks)
    chosen = [case for number in ALL_LEVELS for case in STACKS[number]]
    for factor, levels in {**FREE, **STRUCTURE}.items():
        assert {case[factor] for case in chosen} == set(levels)


def test_no_number_is_one_for_all():
    """What is free in a stack differs from trial to trial, and what is not from stack to stack."""
    seen, free = {}, ("learning_rate", "weight_decay", "clip_norm", "warmup", "model.slope", "epochs")
    for number in range(len(STRUCTURES)):
        for name, values in together(leaves(trial.model_dump()) for trial in cases(number).trials).items():
            seen.setdefault(name, set()).update(map(str, values))
            numbers = [value for value in values if value] if name.endswith(free) else []
            assert len(set(numbers)) == len(numbers), (name, values)
    settings = {
        "backend",
        "devices",
        "threads",
        "precision",
        "class_weights",
        "early_stopping.monitor",
        "early_stopping.patience",
    }
    one = {name for name, values in seen.items() if len(values) == 1 and not name.endswith(".name")}
    assert one == {"inputs", *(f"train.{name}" for name in settings)}


def leaves(values, at=""):
    """By their dotted name; the optimizer's and the schedule's under its own name."""
    if not isinstance(values, dict):
        return {at[:-1]: values}
    at = f"{at}{values['name']}." if "name" in values else at
    return {k: v for name, value in values.items() for k, v in leaves(value, f"{at}{name}.").items()}


def together(dictionaries):
    found = {}
    for name, value in (item for one in dictionaries for item in one.items()):
        found.setdefault(name, []).append(value)
    return found


def test_the_cases_are_what_their_words_say():
    """Clipping clips some steps and others not; rates rise and fall; batches are short, whole, of one row, and of all rows."""
    sizes, clipped, risen = set(), set(), set()
    for number in range(len(STRUCTURES)):
        for chunk, before, _, after in course(number).moments:
            sizes.add(chunk.rows.shape[2])
            for k, trial in enumerate(cases(number).trials):
                risen.add((trial.train.schedule.warmup > 0, chunk.rates[k, 0] < trial.train.optimizer.learning_rate))
                moved = np.abs(after["weights"][k] - before["weights"][k]).max()
                assert 0 < moved < 10
                if trial.train.clip_norm and trial.train.optimizer.name == "sgd" and chunk.step == 0:
                    clipped.add(bool(np.isclose(np.linalg.norm(after["slot.momentum"][k]), trial.train.clip_norm)))
    assert sizes == {16, 6, 14, 1, 70}
    assert clipped == {True, False} and len(risen) == 4
