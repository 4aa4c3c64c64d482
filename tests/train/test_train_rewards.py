"""A reward model learns an order, begins with log 2, is trained once for all who ask, and by four devices as by one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses, train

quiet = partial(train.fit, progress=False)
TASTE = np.array([1.0, -2.0, 0.5], np.float32)


def generations(seed=0, count=40):
    """Pairs of which the better one, by a taste that is not told, comes first."""
    both = np.random.default_rng(seed).normal(size=(count, 2, 3)).astype(np.float32)
    order = np.argsort(-(both @ TASTE), axis=1)
    return {"features": np.take_along_axis(both, order[..., None], axis=1)}


def score(params, rows):
    return rows["features"] @ params


def trained(score=score, comparisons=None, fit=quiet, **how):
    comparisons = generations() if comparisons is None else comparisons
    return train.reward_model(jax.random.key(0), score, jnp.zeros(3), comparisons, fit=fit, **dict(steps=60, batch=16, learning_rate=0.1) | how)


def test_it_orders_pairs_that_it_has_not_seen():
    params, history = trained()
    assert set(history) == {"loss", "accuracy"} and history["loss"][-1] < 0.3 and history["accuracy"][-1] > 0.9
    np.testing.assert_allclose(history["loss"][0], np.log(2), rtol=1e-6)
    better, worse = (generations(seed=1)["features"] @ params).T
    assert np.mean(better > worse) > 0.9


def test_the_loss_is_that_of_bradley_and_terry():
    pairs = generations(count=8)
    params, history = trained(comparisons=pairs, batch=8, steps=2, warm_up=2)
    assert history["loss"][1] < history["loss"][0]
    one, _ = trained(comparisons=pairs, batch=99, steps=1, warm_up=2)
    np.testing.assert_allclose(np.abs(one), 0.05, rtol=1e-3)  # Adam's first step has the size of the rate
    np.testing.assert_allclose(history["loss"][1], losses.mean(losses.bradley_terry(*(pairs["features"] @ one).T)), rtol=1e-5)


def test_two_callers_share_one_training(tmp_path):
    steps = []
    for cell in ("one", "two"):
        (tmp_path / cell / "cells" / "a").mkdir(parents=True)
        trained(fit=partial(quiet, folder=tmp_path / cell / "cells" / "a", log=lambda step, row: steps.append(step)), steps=5)
    assert steps == [1, 2, 3, 4, 5]


def test_four_devices_train_as_one():
    found = []
    for count in (1, 4):
        mesh = jax.make_mesh((count,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:count])
        with jax.set_mesh(mesh):
            found.append(jax.device_get(trained(steps=4)))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), *found)


def one_score(params, rows):
    return rows["features"][:, 0] @ params


@pytest.mark.errors
@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        (dict(score=0.5), TypeError, "score must be a function, got float"),
        (dict(score=one_score), ValueError, r"what score returns must have shape \[B, 2\]"),
        (dict(comparisons=np.ones(3)), TypeError, "comparisons must be a dict of arrays, got ndarray"),
        (dict(comparisons={}), ValueError, "arrays must hold one array at least"),
        (dict(comparisons={"a": np.ones(3), "b": np.ones(4)}), ValueError, "the same leading axis, .* got rows {'a': 3, 'b': 4}"),
        (dict(steps=-1), ValueError, "steps must be at least 0, got -1"),
        (dict(batch=0), ValueError, "batch must be at least 1, got 0"),
        (dict(warm_up=-1), ValueError, "warm_up must be at least 0, got -1"),
        (dict(learning_rate=-1.0), ValueError, "learning_rate must be at least 0"),
    ],
)
def test_bad_input_is_named(how, error, match):
    with pytest.raises(error, match=match):
        trained(**how)
