"""A share of a labelled set: how many of each class, which ones, and nested shares."""

import jax
import numpy as np
import pytest

from cljax import samplers

LABELS = np.repeat([7, -2, 40], [50, 30, 5])
KEY = jax.random.key(0)


@pytest.mark.parametrize("share, counts", [(0.0, [1, 1, 1]), (0.01, [1, 1, 1]), (6 / 85, [2, 2, 2]), (0.5, [18, 19, 5]), (1.0, [50, 30, 5])])
def test_there_are_as_many_of_each_class(share, counts):
    chosen = samplers.class_shares(KEY, LABELS, share)
    assert len(set(chosen.tolist())) == len(chosen) == max(3, round(share * 85))
    found = [int(np.sum(LABELS[chosen] == label)) for label in (7, -2, 40)]
    assert sorted(found[:2]) == sorted(counts[:2]) and found[2] == counts[2]


def test_a_smaller_share_is_a_part_of_a_larger_one():
    small, large = (samplers.class_shares(KEY, LABELS, share).tolist() for share in (0.1, 0.3))
    assert small == large[: len(small)]


def test_each_example_of_a_class_and_each_class_is_as_likely():
    drawn = [samplers.class_shares(jax.random.key(seed), LABELS, 7 / 85) for seed in range(300)]  # of one class three, of two two
    times = np.bincount(np.concatenate(drawn), minlength=85)
    share = 300 * 7 / 3 / np.repeat([50, 30, 5], [50, 30, 5])
    assert np.all(np.abs(times - share) < 5 * np.sqrt(share))
    three = [np.unique(LABELS[chosen], return_counts=True)[1].argmax() for chosen in drawn]
    assert np.bincount(three).min() > 70


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="share must be at least 0 and at most 1, got 1.5"):
        samplers.class_shares(KEY, LABELS, 1.5)
    with pytest.raises(ValueError, match=r"share must have shape \[\], got \[2\]"):
        samplers.class_shares(KEY, LABELS, np.ones(2, np.float32) / 2)
    with pytest.raises(TypeError, match="labels must have dtype int"):
        samplers.class_shares(KEY, LABELS * 1.0, 0.5)
    with pytest.raises(ValueError, match="labels must hold one at least"):
        samplers.class_shares(KEY, LABELS[:0], 0.5)
    with pytest.raises(TypeError, match="labels must be concrete"):
        jax.jit(lambda labels: samplers.class_shares(KEY, labels, 0.5))(LABELS)
