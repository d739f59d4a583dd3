"""Claims about paired differences hold as often as they say: checked against known numbers, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pipelines.compare.significance import holm, needed, p_differs, p_equivalent, paired

DIFFERENCES = [0.02, -0.01, 0.03, 0.015, 0.0, 0.04]


def test_the_interval_and_p_of_a_difference_are_those_of_scipys_paired_t_test():
    found, theirs = paired(DIFFERENCES), stats.ttest_1samp(DIFFERENCES, 0.0)
    assert p_differs(found) == pytest.approx(theirs.pvalue, rel=1e-12)
    assert found.interval() == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-12)


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.08])
def test_two_one_sided_tests_are_those_of_scipy(margin):
    above = stats.ttest_1samp(DIFFERENCES, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(DIFFERENCES, margin, alternative="less").pvalue
    assert p_equivalent(paired(DIFFERENCES), margin) == pytest.approx(max(above, below), rel=1e-12)


def test_equivalence_is_claimed_where_the_90_percent_interval_lies_within_the_margin():
    found = paired(DIFFERENCES)
    border = max(map(abs, stats.ttest_1samp(DIFFERENCES, 0.0).confidence_interval(0.9)))
    assert p_equivalent(found, border * 1.001) < 0.05 < p_equivalent(found, border * 0.999)


def test_rows_that_splits_share_make_the_error_larger_as_nadeau_and_bengio_say():
    alone, shared = paired(DIFFERENCES), paired(DIFFERENCES, overlap=1 / 3)
    assert shared.error == pytest.approx(alone.sd * math.sqrt(1 / 6 + 1 / 3))
    assert p_differs(shared) > p_differs(alone)


def test_holm_gives_the_numbers_of_its_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


@pytest.mark.parametrize(("count", "differs", "alike"), [(3, 0.25, 0.125), (6, 1 / 32, 1 / 64)])
def test_differences_that_are_all_one_value_are_judged_by_their_sign_for_t_has_nothing_to_go_by(count, differs, alike):
    found = paired([0.01] * count)
    assert (p_differs(found), p_equivalent(found, 0.02)) == (differs, alike)
    assert p_equivalent(found, 0.01) == 1.0 and p_differs(paired([0.0] * count)) == 1.0


@pytest.mark.parametrize("distance", [0.3, 0.8])
def test_the_pairs_that_are_asked_for_would_show_the_difference_with_power_80_percent(distance):
    draws = np.random.default_rng(0).normal(size=(4000, needed(paired([1.0, -1.0, 1.0, -1.0, 0.0]), distance, 0.025)))
    shown = stats.ttest_1samp(draws + distance / paired([1.0, -1.0, 1.0, -1.0, 0.0]).sd, 0.0, axis=1).pvalue < 0.05
    assert 0.77 < shown.mean() < 0.86


def test_where_splits_share_their_rows_no_number_of_them_shows_a_small_difference():
    values = [0.1, -0.1, 0.2, 0.0, 0.05]
    assert needed(paired(values, overlap=1 / 3), 0.05, 0.025) is None
    assert needed(paired(values), 0.05, 0.025) > 30


# How often claims are wrong ------------------------------------------------------------------------------------------------

TIMES = 2000
ALLOWED = 0.05 + 3 * math.sqrt(0.05 * 0.95 / TIMES)


def claims(rows, claim):
    """The share of rows of differences for which the claim is made."""
    return sum(claim(row.tolist()) for row in rows) / len(rows)


@pytest.mark.parametrize("count", [3, 10, 40])
def test_of_groups_that_do_not_differ_a_difference_is_called_real_in_one_of_twenty(count):
    rows = np.random.default_rng(count).normal(size=(TIMES, count))
    assert 0.03 < claims(rows, lambda row: p_differs(paired(row)) < 0.05) < ALLOWED


@pytest.mark.parametrize("count", [3, 10, 40])
def test_a_difference_of_the_margin_is_called_negligible_in_one_of_twenty_at_most(count):
    rows = np.random.default_rng(count).normal(0.5, 0.3, size=(TIMES, count))
    assert claims(rows, lambda row: p_equivalent(paired(row), 0.5) < 0.05) < ALLOWED


def test_splits_of_one_data_set_would_be_called_different_far_too_often_without_the_correction():
    """Splits that share rows err together: a part of each difference is the same in all of them."""
    rng, share = np.random.default_rng(1), 0.25  # n_test / (n_test + n_train), as Nadeau and Bengio take it
    rows = math.sqrt(share) * rng.normal(size=(TIMES, 1)) + math.sqrt(1 - share) * rng.normal(size=(TIMES, 10))
    assert claims(rows, lambda row: p_differs(paired(row, overlap=1 / 3)) < 0.05) < ALLOWED
    assert claims(rows, lambda row: p_differs(paired(row)) < 0.05) > 0.25


def test_of_many_comparisons_even_one_wrong_claim_is_made_in_one_of_twenty():
    rows = np.random.default_rng(2).normal(size=(TIMES // 2, 6, 10))
    found = [[p_differs(paired(row.tolist())) for row in each] for each in rows]
    assert sum(min(holm(ps)) < 0.05 for ps in found) / len(rows) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(rows))
    assert sum(min(ps) < 0.05 for ps in found) / len(rows) > 0.2
