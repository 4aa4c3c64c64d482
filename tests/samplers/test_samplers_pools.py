"""Batches of a pool of which a part has labels: each part in epochs, alone or beside the other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import memory, samplers, train

ROWS, BOUGHT = 30, {3: 5, 21: 1, 7: 2}
LABELS = memory.labels(ROWS, 5)
KNOWN = LABELS.update(LABELS.init(), jnp.array(list(BOUGHT)), jnp.array(list(BOUGHT.values())))
ARRAYS = {"pool": {"x": 10 * jnp.arange(ROWS)}, "known": KNOWN, "key": jax.random.key(5), "first": jnp.int32(0)}
draw = jax.jit(samplers.pool_batch, static_argnames=("labelled", "unlabelled", "replace"))


def test_batches_hold_labels_and_the_rest_of_the_pool():
    drawn = [draw(jax.random.key(t), ARRAYS, t, labelled=3, unlabelled=9) for t in range(3)]
    free = np.concatenate([batch["free"]["index"] for batch in drawn])
    assert sorted(free) == sorted(set(range(ROWS)) - set(BOUGHT))  # an epoch: each once
    for t, batch in enumerate(drawn):
        assert dict(zip(batch["known"]["index"].tolist(), batch["labels"].tolist(), strict=True)) == BOUGHT
        assert batch["place"].tolist() == [3 * t, 3 * t + 1, 3 * t + 2]
        for part in ("known", "free"):
            np.testing.assert_array_equal(batch[part]["pool"]["x"], 10 * batch[part]["index"])


def test_later_steps_go_on_with_the_epochs_of_others_and_those_with_labels_may_be_alone():
    later = draw(jax.random.key(0), ARRAYS | {"first": jnp.int32(2)}, 1, labelled=2, unlabelled=4)
    whole = draw(jax.random.key(9), ARRAYS, 3, labelled=2, unlabelled=4)  # the step's key changes nothing
    jax.tree.map(np.testing.assert_array_equal, later, whole)
    alone = draw(jax.random.key(0), ARRAYS, 3, labelled=2)
    assert set(alone) == {"known", "labels", "place"}
    jax.tree.map(np.testing.assert_array_equal, alone, {name: whole[name] for name in alone})


def test_with_replacement_every_row_without_a_label_is_as_likely():
    drawn = draw(jax.random.key(3), ARRAYS, 0, labelled=1, unlabelled=2700, replace=True)["free"]["index"]
    counts = np.bincount(drawn, minlength=ROWS)
    assert not counts[list(BOUGHT)].any() and abs(np.delete(counts, list(BOUGHT)) - 100).max() < 45  # 4.5 deviations
    other = draw(jax.random.key(4), ARRAYS, 0, labelled=1, unlabelled=2700, replace=True)["free"]["index"]
    assert (drawn != other).any()


def seen(state, batch, key):
    return state.at[batch["free"]["index"]].add(1), {}


def test_a_fit_takes_it():
    batches = train.draws(ARRAYS, partial(samplers.pool_batch, labelled=2, unlabelled=9))
    state, _ = train.fit(jax.random.key(0), jnp.zeros(ROWS, int), seen, batches, steps=3, progress=False)
    assert set(np.flatnonzero(state == 0)) == set(BOUGHT) and int(state.max()) == 1


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="labelled must be at least 1, got 0"):
        samplers.pool_batch(jax.random.key(0), ARRAYS, 0, labelled=0)
    with pytest.raises(ValueError, match="arrays must hold pool, known, key and first, got pool"):
        samplers.pool_batch(jax.random.key(0), {"pool": ARRAYS["pool"]}, 0, labelled=1)
