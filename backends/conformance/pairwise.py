"""Few cases in which every two levels of any two factors meet once at least. Greedy, and the same list on every machine."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations

Case = dict[str, str]  # factor -> level
Pair = tuple[tuple[str, str], tuple[str, str]]  # two (factor, level), the factors in the order of their names


def pairwise(factors: Mapping[str, Sequence[str]], within: Sequence[Case] = ({},), never: Collection[Pair] = ()) -> list[Case]:
    """Cases over `factors`. With `within`, each case agrees with one of these partial cases on the factors that they name.

    The partial cases take turns, so they are used about equally often. Two levels that mean nothing together are a pair of
    `never`: no case has both. Raises ValueError if the partial cases leave out any other pair.
    """
    never = {_pair(*pair) for pair in never}
    missing = {pair: None for pair in all_pairs(factors) if pair not in never}
    cases: list[Case] = []
    while missing:
        before = len(missing)
        for base in within:
            # A missing pair to start from, so that no case is in vain.
            pair = next((pair for pair in missing if _agrees(base, pair) and _sensible(base | dict(pair), never)), None)
            if pair is not None:
                cases.append(_completed(base | dict(pair), factors, missing, never))
                for met in pairs_of(cases[-1]):
                    missing.pop(met, None)
        if len(missing) == before:
            raise ValueError(f"none of the {len(within)} partial cases may have {dict(next(iter(missing)))}")
    return cases


def all_pairs(factors: Mapping[str, Sequence[str]]) -> dict[Pair, None]:
    """Every pair of levels of two factors, in order (a dict is a set that keeps its order)."""
    return {
        _pair((one, first), (other, second)): None
        for one, other in combinations(factors, 2)
        for first in factors[one]
        for second in factors[other]
    }


def pairs_of(case: Case) -> Iterator[Pair]:
    """The pairs that meet in a case."""
    return (_pair(one, other) for one, other in combinations(case.items(), 2))


def _pair(one: tuple[str, str], other: tuple[str, str]) -> Pair:
    return (one, other) if one < other else (other, one)


def _agrees(base: Case, pair: Pair) -> bool:
    return all(base.get(factor, level) == level for factor, level in pair)


def _sensible(case: Case, never: Collection[Pair]) -> bool:
    return not never or not any(pair in never for pair in pairs_of(case))


def _completed(started: Case, factors: Mapping[str, Sequence[str]], missing: Collection[Pair], never: Collection[Pair]) -> Case:
    """Factor after factor, the level that meets the most missing pairs with what is there; the first of equals."""
    case = dict(started)
    for factor, levels in factors.items():
        if factor not in case:
            allowed = [level for level in levels if _sensible({**case, factor: level}, never)]
            gains = [sum(_pair((factor, level), old) in missing for old in case.items()) for level in allowed]
            case[factor] = allowed[gains.index(max(gains))]
    return {factor: case[factor] for factor in factors}
