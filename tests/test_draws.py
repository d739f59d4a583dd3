"""The draws are random where they must be, and nothing but functions of the seed."""

import numpy as np
import pytest

from backends import draws
from backends.conformance import make_trial

FIRST_WORDS = [14244119066764012991, 17315831955332263573]
FIRST_KEYS = [[3112853886, 811201313], [892319706, 3160441019]]
FIRST_NOISE = [3648235565, 1342944520, 407194497, 1424357861]
FIRST_ORDER = [5, 4, 1, 0, 6, 3, 2, 7]
LATER_KEYS = [[881807295, 997699461], [920260724, 3573855262]]  # at step 2^31
LATER_NOISE = [[3741658753, 2711906975], [2399714804, 1031424562]]
LATER_ORDER = [4, 7, 5, 1, 2, 0, 6, 3]  # of epoch 3


def bits(keys, rows=64, units=96):
    return draws.noise(keys, rows, units)


def test_the_first_words_never_change():
    """The format of every result ever recorded: change it, and no old run can be reproduced."""
    assert draws.raw_words(1, draws.WEIGHTS, 0, 2).tolist() == FIRST_WORDS
    assert draws.noise_keys([1], [0], 2)[0, 0].tolist() == FIRST_KEYS
    assert draws.noise(draws.noise_keys([1], [0], 1)[0, 0, 0], 1, 4).tolist() == [FIRST_NOISE]
    assert draws.row_order(1, 0, 8).tolist() == FIRST_ORDER
    assert draws.noise_keys([1], [2**31], 2)[0, 0].tolist() == LATER_KEYS
    assert draws.noise(draws.noise_keys([1], [2**31], 2)[0, 0, 1], 2, 2).tolist() == LATER_NOISE
    assert draws.row_order(1, 3, 8).tolist() == LATER_ORDER


def test_a_row_keeps_its_noise_when_a_rank_holds_only_a_part_of_the_batch():
    keys = draws.noise_keys([4], [9], 2)[0, 0, 1]
    np.testing.assert_array_equal(draws.noise(keys, np.array([3, 17, 30]), 20), draws.noise(keys, 32, 20)[[3, 17, 30]])


def chi_square(values, bins=256):
    counts = np.bincount(values.ravel() % bins, minlength=bins)
    expected = values.size / bins
    return ((counts - expected) ** 2 / expected).sum()


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_every_byte_of_the_noise_is_uniform(shift):
    sample = bits(draws.noise_keys(range(8), range(25), 1)[:, :, 0]) >> np.uint32(shift)
    # χ² with 255 degrees of freedom: mean 255, sd 22.6; five sd either way.
    assert 142 < chi_square(sample.astype(np.int64)) < 368


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_the_share_of_dropped_units_is_p(p):
    sample = bits(draws.noise_keys([5], range(200), 1)[0, :, 0])
    share = ((sample >> np.uint32(8)) < draws.threshold(p)).mean()
    assert share == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / sample.size))


def test_the_threshold_is_the_floor():
    assert draws.threshold(0.3) == 5033164  # 0.3 * 2^24 is 5033164.8
    assert [draws.threshold(p) for p in (0, 2**-25, 0.5, 1 - 2**-25)] == [0, 0, 2**23, 2**24 - 1]


def neighbours():
    keys = draws.noise_keys(range(6), range(120), 3)
    field = bits(keys, 16, 24) / 2.0**32 - 0.5  # (seeds, steps, places, rows, units)
    return {
        "seeds": (field[:-1], field[1:]),
        "steps": (field[:, :-1], field[:, 1:]),
        "layers": (field[:, :, :-1], field[:, :, 1:]),
        "rows": (field[..., :-1, :], field[..., 1:, :]),
        "units": (field[..., :-1], field[..., 1:]),
        "seed and step": (field[:-1, 1:], field[1:, :-1]),
        "step and layer": (field[:, :-1, 1:], field[:, 1:, :-1]),
    }


@pytest.mark.parametrize("along", ["seeds", "steps", "layers", "rows", "units", "seed and step", "step and layer"])
def test_noise_is_uncorrelated_between_neighbouring(along):
    one, other = neighbours()[along]
    correlation = (one * other).mean() * 12  # the variance of a uniform number is 1/12
    assert abs(correlation) < 5 / np.sqrt(one.size)
    dropped = (one < -0.2) == (other < -0.2)  # as masks: p = 0.3, so 0.58 agree by chance
    assert dropped.mean() == pytest.approx(0.58, abs=5 * np.sqrt(0.58 * 0.42 / dropped.size))


def test_a_change_of_one_bit_in_the_seed_or_step_changes_half_of_the_noise_bits():
    for pair in (draws.noise_keys([0, 1], [0], 1)[:, 0, 0], draws.noise_keys([0], [0, 1], 1)[0, :, 0]):
        flipped = np.bitwise_count(bits(pair[0]) ^ bits(pair[1]))
        assert flipped.mean() == pytest.approx(16, abs=0.3)


def test_keys_do_not_repeat_over_seeds_steps_and_layers():
    keys = draws.noise_keys(range(50), range(2000), 4).reshape(-1, 2).astype(np.uint64)
    assert len(np.unique(keys[:, 0] << np.uint64(32) | keys[:, 1])) == len(keys)


def test_the_mixer_is_a_bijection_on_a_sample():
    words = np.arange(2**20, dtype=np.uint32) * np.uint32(4093)
    assert len(np.unique(draws.mix(words))) == len(words)


def test_an_epochs_order_is_a_permutation_and_another_in_each_epoch_and_seed():
    orders = [draws.row_order(seed, epoch, 1000) for seed in (1, 2) for epoch in (0, 1, 2)]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 6
    ranks = np.array([np.corrcoef(one, other)[0, 1] for i, one in enumerate(orders) for other in orders[:i]])
    assert np.abs(ranks).max() < 5 / np.sqrt(1000)


def test_every_row_is_as_likely_to_come_first():
    first = np.array([draws.row_order(seed, 0, 10)[0] for seed in range(3000)])
    assert chi_square(first, bins=10) < 9 + 5 * np.sqrt(18)


@pytest.mark.parametrize("activation, initializer, squared", [
    ("relu", "auto", 6 / 200), ("tanh", "auto", 6 / 300), ("selu", "auto", 3 / 200), ("leaky_relu", "auto", 6 / (1.04 * 200)),
    ("relu", "glorot_uniform", 6 / 300), ("tanh", "he_uniform", 6 / 200), ("relu", "lecun_uniform", 3 / 200),
    ("relu", "torch_uniform", 1 / 200),
])  # fmt: skip
def test_initial_weights_are_uniform_within_the_bound_of_their_initializer(activation, initializer, squared):
    trial = make_trial("multiclass", inputs=200, hidden=(100,), activation=activation, slope=0.2, initializer=initializer)
    drawn = draws.initial_weights(trial, 0)
    b = np.sqrt(squared)
    assert draws.bound(trial, 0) == pytest.approx(b)
    assert np.abs(drawn["weight"]).max() <= b
    assert drawn["weight"].var() == pytest.approx(b * b / 3, rel=0.03)
    assert abs(drawn["weight"].mean()) < 5 * b / np.sqrt(3 * drawn["weight"].size)
    assert drawn["bias"].any() == (initializer == "torch_uniform")


def test_torch_uniform_draws_biases_as_torch_does_after_the_weights_which_stay():
    drawn, plain = (
        draws.initial_weights(make_trial("multiclass", inputs=25, hidden=(900,), initializer=name), 0)
        for name in ("torch_uniform", "he_uniform")
    )
    assert np.abs(drawn["bias"]).max() <= 0.2 and drawn["bias"].var() == pytest.approx(0.04 / 3, rel=0.1)
    np.testing.assert_allclose(drawn["weight"] * np.sqrt(6), plain["weight"], rtol=1e-12)


def test_the_output_layer_starts_by_glorot_whatever_the_activation():
    trial = make_trial("multiclass", hidden=(100,), activation="relu")
    assert draws.bound(trial, 1) == pytest.approx(np.sqrt(6 / 103))


def test_layers_and_seeds_start_from_different_weights():
    trials = [make_trial("multiclass", hidden=(20, 20, 20), seed=seed) for seed in (1, 2)]
    drawn = [draws.initial_weights(trial, layer)["weight"] for trial in trials for layer in (1, 2)]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.2


@pytest.mark.parametrize("change", [(1, 1), (0, 1), (2, 5)])
def test_keys_that_nearly_agree_give_noise_that_shares_nothing(change):
    """One round of the mixer would give the same words in another order, or shifted by a place."""
    key = np.array([0x12345678, 0x9ABCDEF0], dtype=np.uint32)
    one, other = bits(key), bits(key + np.array(change, dtype=np.uint32))
    assert len(np.intersect1d(one, other)) <= 2  # of 6144 words each, 0.009 expected by chance
