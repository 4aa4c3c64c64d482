"""A classifier with labels: Adam on the cross-entropy, rows that are held out, parameters that stay."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cljax import encoders, train

MODEL = encoders.MLP((5,), 3)
LABELS = np.arange(30) % 3
INPUTS = (np.eye(3)[LABELS] + 0.1 * np.random.default_rng(0).normal(size=(30, 3))).astype(np.float32)
PARAMS = MODEL.init(jax.random.key(1), INPUTS)
quiet = partial(train.fit, progress=False)


def forward(model, params, x, index, key):
    return model.apply(params, x)


def halved(model, params, x, index, key):
    """The first layer stays; in training half of the inputs are missing, by the example."""
    layers = params["params"] | {"Dense_0": jax.lax.stop_gradient(params["params"]["Dense_0"])}
    if key is not None:
        x = x * jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i), shape=(3,)))(index)
    return model.apply({"params": layers}, x)


def trained(forward=forward, fit=quiet, **options):
    options = dict(steps=3, batch=30, learning_rate=0.01) | options
    return train.classifier(jax.random.key(0), partial(forward, MODEL), PARAMS, INPUTS, LABELS, fit=fit, **options)


def test_it_is_adam_on_the_cross_entropy():
    found, history = trained()
    optimiser, params = optax.adam(0.01), PARAMS
    opt, expected = optimiser.init(params), []

    @jax.jit
    def loss(params):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(MODEL.apply(params, INPUTS), LABELS))

    for _ in range(3):
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = optimiser.update(grads, opt)
        params = optax.apply_updates(params, updates)
        expected.append(float(value))
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), found, params)
    assert set(history) == {"loss"}


def of_two(model, params, x, index, key):
    return model.apply(params, x["seen"] + x["added"])


def test_inputs_may_be_a_tree():
    two = {"seen": INPUTS, "added": 0 * INPUTS}
    found, history = train.classifier(
        jax.random.key(0), partial(of_two, MODEL), PARAMS, two, LABELS, steps=3, batch=30, learning_rate=0.01, fit=quiet
    )
    expected, whole = trained()
    np.testing.assert_allclose(history["loss"], whole["loss"], rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), found, expected)


def test_rows_held_out_are_not_trained_on_and_choose_the_epoch():
    wrong = np.where(np.arange(30) < 6, (LABELS + 1) % 3, LABELS)  # the first ones contradict the others: the longer, the worse on them
    how = dict(steps=40, batch=8, learning_rate=0.05, held_out=0.2, fit=quiet)
    best, history = train.classifier(jax.random.key(0), partial(forward, MODEL), PARAMS, INPUTS, wrong, **how)
    loss = optax.softmax_cross_entropy_with_integer_labels(MODEL.apply(best, INPUTS[:6]), wrong[:6]).mean()
    assert len(history["held-out loss"]) == 14 and np.argmin(history["held-out loss"]) == 0  # after each epoch of 24 // 8 steps, and the last step
    np.testing.assert_allclose(loss, history["held-out loss"][0], rtol=1e-5)
    assert history["loss"][-1] < 0.2 < history["held-out loss"][-1]  # the others were learnt without a contradiction

    def fit(key, state, step, batches, **options):
        seen.append({tuple(row) for row in np.asarray(batches.arrays["inputs"]).tolist()})
        return state, {}

    seen = []
    trained(fit=fit, held_out=0.2)
    trained(fit=fit)
    assert len(seen[0]) == 24 and len(seen[1]) == 30 and not seen[0] & {tuple(row) for row in INPUTS[:6].tolist()}


def test_what_gets_no_gradient_stays_and_draws_hang_on_the_example():
    found, history = trained(forward=halved, steps=4, held_out=0.1)
    jax.tree.map(np.testing.assert_array_equal, found["params"]["Dense_0"], PARAMS["params"]["Dense_0"])
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), found["params"]["Dense_1"], PARAMS["params"]["Dense_1"])
    assert max(jax.tree.leaves(moved)) > 1e-3 and len(history["held-out loss"]) == 4
    again, _ = trained(forward=halved, steps=4, held_out=0.1)
    jax.tree.map(np.testing.assert_array_equal, found, again)


def test_fewer_rows_than_a_batch_are_one():
    (_, more), (_, whole) = trained(batch=100, steps=2), trained(batch=30, steps=2)
    np.testing.assert_array_equal(more["loss"], whole["loss"])


@pytest.mark.errors
@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        (dict(held_out=0.01), ValueError, "held_out must leave rows on both sides, got 0.01 of 30"),
        (dict(held_out=1.0), ValueError, "held_out must leave rows on both sides, got 1.0 of 30"),
        (dict(held_out=2.0), ValueError, "held_out must be at least 0 and at most 1, got 2"),
        (dict(batch=0), ValueError, "batch must be at least 1, got 0"),
        (dict(steps=-1), ValueError, "steps must be at least 0, got -1"),
        (dict(learning_rate=-0.1), ValueError, "learning_rate must be at least 0"),
    ],
)
def test_bad_options_are_named(how, error, match):
    with pytest.raises(error, match=match):
        trained(**how)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"inputs must have one row for each of the 30 labels, got shapes \[\[29, 3\]\]"):
        train.classifier(jax.random.key(0), forward, PARAMS, INPUTS[1:], LABELS, steps=1)
    with pytest.raises(TypeError, match="forward must be a function, got dict"):
        train.classifier(jax.random.key(0), {}, PARAMS, INPUTS, LABELS, steps=1)
    with pytest.raises(TypeError, match="labels must have dtype int"):
        train.classifier(jax.random.key(0), forward, PARAMS, INPUTS, INPUTS[:, 0], steps=1)
