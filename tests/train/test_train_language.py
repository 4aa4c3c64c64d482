"""The language model of the scripts: it learns what follows what, is trained once for all who ask for it, and goes on where it was stopped."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import encoders, losses, train

MODEL = encoders.Decoder(6, 8, layers=1, heads=2, positions="rotary")
TEXT = jnp.tile(jnp.array([0, 1, 2, 3, 4, 5, 0, 2]), 10)
quiet = partial(train.fit, progress=False)
simctg = partial(losses.simctg, margin=0.5, axis_name="data")


class Stop(Exception):
    pass


def stop_at(limit, step, row):
    if step == limit:
        raise Stop


def fit_model(tokens=TEXT, key=0, model=MODEL, fit=quiet, **options):
    options = dict(steps=30, batch=4, length=7, learning_rate=0.02, warm_up=4) | options
    return train.language_model(jax.random.key(key), model, tokens, fit=fit, **options)


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def learnt():
    return fit_model(steps=60)


def test_it_learns_what_follows_what(learnt):
    params, history = learnt
    assert set(history) == {"loss"} and history["loss"].shape == (60,)
    assert abs(history["loss"][0] - np.log(6)) < 0.8 and history["loss"][-1] < 0.4
    logits = MODEL.apply(params, TEXT[None, :8])[1]
    assert jnp.argmax(logits[0, 1:5], axis=1).tolist() == [2, 3, 4, 5]


def test_the_loss_is_that_of_the_next_token():
    rows = jax.random.randint(jax.random.key(1), (8, 5), 0, 6)
    mask = jnp.arange(5) < jnp.array([5, 3, 2, 1, 5, 4, 4, 5])[:, None]
    params = MODEL.init(jax.random.key(2), rows)
    _, history = fit_model(rows, params=params, mask=mask, batch=8, steps=1)
    logits = MODEL.apply(params, rows, mask)[1]
    each = losses.token_cross_entropy(logits[:, :-1], rows[:, 1:], mask[:, 1:])
    np.testing.assert_allclose(history["loss"][0], losses.mean(each), rtol=1e-5)
    other = jnp.where(mask, rows, 5)
    assert equal(fit_model(other, params=params, mask=mask, batch=8, steps=2), fit_model(rows, params=params, mask=mask, batch=8, steps=2))


def test_windows_lie_anywhere_in_the_text():
    data = train.language._batches(jnp.arange(30), None, 500, 9)
    batch = data.draw(jax.random.key(0), data.arrays, 0)
    assert batch["ids"].shape == (500, 10) and np.all(np.diff(batch["ids"], axis=1) == 1)
    assert set(batch["ids"][:, 0].tolist()) == set(range(21))


def test_a_penalty_is_added_and_does_what_it_says(learnt):
    params, history = fit_model(steps=60, penalty=simctg)
    assert set(history) == {"loss", "penalty"} and history["loss"][-1] < 0.6
    found = [losses.simctg(MODEL.apply(p, TEXT[None, :8])[0]) for p in (params, learnt[0])]
    np.testing.assert_allclose(history["loss"][0], learnt[1]["loss"][0], rtol=1e-5)
    assert found[0] < found[1] / 2


def test_the_rate_rises_and_falls():
    params = MODEL.init(jax.random.key(2), TEXT[None, :2])
    how = dict(params=params, weight_decay=0, warm_up=2, learning_rate=0.1)
    first, second, last = (fit_model(**how, **more)[0] for more in (dict(steps=1), dict(steps=2), dict(steps=2, decay=True)))
    moved = max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, (first, params)), strict=True))
    np.testing.assert_allclose(moved, 0.05, rtol=1e-2)  # Adam's first step has the size of the rate
    assert equal(second, last)  # both are of the rise


def test_decay_of_weights_and_clipping_are_those_of_adamw():
    params = MODEL.init(jax.random.key(2), TEXT[None, :2])
    how = dict(params=params, steps=1, warm_up=1, learning_rate=0.1)
    plain, decayed, clipped = (
        fit_model(**how, **more)[0] for more in (dict(weight_decay=0.0), dict(weight_decay=0.5), dict(clip=1e-9, weight_decay=0))
    )
    jax.tree.map(lambda a, b, p: np.testing.assert_allclose(a - b, 0.05 * p, atol=1e-6), plain, decayed, params)
    moved = [max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, (p, params)), strict=True)) for p in (plain, clipped)]
    assert moved[0] > 0.09 and moved[1] < 0.02  # Adam's step has the size of the rate, unless its epsilon counts


def test_two_callers_share_one_training(tmp_path):
    steps = []
    cells = [tmp_path / experiment / "cells" / "one" for experiment in ("first", "second")]
    for cell in cells:
        cell.mkdir(parents=True)
    watched = [partial(quiet, folder=cell, log=lambda step, row: steps.append(step)) for cell in cells]
    first, second = (fit_model(fit=fit) for fit in watched)
    assert steps == list(range(1, 31)) and equal(first, second)
    assert len(list((tmp_path / "shared").iterdir())) == 1
    for change in (dict(key=1), dict(penalty=simctg), dict(tokens=TEXT[1:]), dict(model=MODEL.clone(heads=1))):
        fit_model(fit=watched[1], **change)
    assert len(list((tmp_path / "shared").iterdir())) == 5 and len(steps) == 150


def test_a_stopped_training_goes_on_bit_for_bit(tmp_path):
    with pytest.raises(Stop):
        fit_model(fit=partial(quiet, folder=tmp_path, log=partial(stop_at, 12), chunk=5))
    steps = []
    resumed = fit_model(fit=partial(quiet, folder=tmp_path, log=lambda step, row: steps.append(step)))
    assert steps[0] > 1 and steps[-1] == 30 and equal(resumed, fit_model())


def test_four_devices_train_as_one():
    model, found = MODEL.clone(dropout=0.5), []
    for count in (1, 4):
        mesh = jax.make_mesh((count,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:count])
        with jax.set_mesh(mesh):
            found.append(jax.device_get(fit_model(model=model, steps=4, penalty=simctg, batch=8)))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), *found)


def test_dropout_is_on_in_training():
    plain, dropped = (fit_model(model=MODEL.clone(dropout=dropout), penalty=simctg, batch=8, steps=3)[1]["loss"] for dropout in (0.0, 0.5))
    assert abs(plain[0] - dropped[0]) > 1e-3


@pytest.mark.errors
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(tokens=TEXT[:7]), "tokens must hold more than the 7"),
        (dict(tokens=TEXT.astype(float)), "tokens must have dtype int"),
        (dict(tokens=TEXT[:, None]), "two tokens at least"),
        (dict(mask=TEXT > 0), "mask is of the rows"),
        (dict(tokens=TEXT.reshape(8, 10), mask=TEXT > 0), "mask must have shape"),
        (dict(steps=-1), "steps must be at least 0"),
        (dict(batch=0), "batch must be at least 1"),
        (dict(learning_rate=-1.0), "learning_rate must be at least 0"),
        (dict(clip=0.0), "clip must be greater than 0"),
        (dict(penalty=0.5), "penalty must be a function"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fit_model(**change)
