"""Bad arguments of `fit` are named before any work is done."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import train

pytestmark = pytest.mark.errors
DATA = train.draws({"x": np.zeros((8, 2))}, lambda key, arrays, t: arrays)


def good(state, batch, key):
    return state, None


def returns(what, state, batch, key):
    return what(state) if callable(what) else what


class Object:
    def step(self, state, batch, key):
        return state, None

    __call__ = step


def fit(key=None, state=None, step=good, data=DATA, **options):
    key = jax.random.key(0) if key is None else key
    return train.fit(key, {"x": 0.0} if state is None else state, step, data, **{"steps": 1, "progress": False, **options})


def test_a_step_must_be_made_once():
    def inner(state, batch, key):
        return state, None

    for step in (inner, lambda state, batch, key: (state, None), partial(partial(inner)), Object(), Object().step):
        with pytest.raises(
            ValueError, match="step must be a top-level function or a functools.partial of one, got .*; bind values by functools.partial"
        ):
            fit(step=step)
    fit(step=jax.jit(good))


def test_an_array_that_is_gone_is_named():
    gone, arrays = jnp.zeros(3), train.draws({"x": jnp.zeros((8, 2))}, 4)
    gone.delete()
    arrays.arrays["x"].delete()
    text = "must hold its values, got an array that was deleted or donated to a program"
    for name, options in (
        (r"state\['w'\]", {"state": {"w": gone}}),
        (r"data\[1\]\['x'\]", {"data": arrays}),
        (r"step\[0\]", {"step": partial(returns, gone)}),
    ):
        with pytest.raises(ValueError, match=f"^{name} {text}"):
            fit(**options)


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"steps": -1}, ValueError, "steps must be at least 0"),
        ({"steps": 1.5}, TypeError, "steps must be an integer, got 1.5"),
        ({"steps": True}, TypeError, "steps must be an integer"),
        ({"chunk": 0}, ValueError, "chunk must be at least 1"),
        ({"save_seconds": -1}, ValueError, "save_seconds must be at least 0"),
        ({"name": "a/b"}, ValueError, "name must serve as a folder's name .* got 'a/b'"),
        ({"name": ".."}, ValueError, "name must serve as a folder's name"),
        ({"name": 3}, TypeError, "name must be a string, got int"),
        ({"after": (5, good)}, TypeError, r"after must hold pairs \(every, hook\)"),
        ({"after": ((0, good),)}, ValueError, r"after\[0\]\[0\] must be at least 1"),
        ({"after": ((1, "hook"),)}, TypeError, r"after\[0\]\[1\] must be a function, got str"),
        ({"folder": 3}, TypeError, "folder must be a path or None, got int"),
        ({"log": 3}, TypeError, "log must be a function or None, got int"),
        ({"key": 3}, TypeError, "key must be a PRNG key, .* got 3"),
        ({"key": np.zeros(3)}, TypeError, "key must be a PRNG key, .* got ndarray"),
        ({"key": jax.random.split(jax.random.key(0), 2)}, ValueError, r"key must be one PRNG key, got an array of shape \[2\]"),
        ({"state": {}}, ValueError, "state must hold one array at least"),
        ({"state": {"a": 1.0, "b": "text"}}, TypeError, r"state\['b'\] must be an array or a number, got str"),
        ({"step": "step"}, TypeError, "step must be a function, got str"),
        ({"step": partial(returns, {1, 2})}, TypeError, r"step binds \[0\], a set: bound values must be arrays, floats or hashable"),
        ({"data": {"x": np.zeros(3)}}, TypeError, r"data must be train.draws\(arrays, draw\) or an iterator of batches, got dict$"),
        ({"data": [1, 2]}, TypeError, r"got list; make it one with iter\(...\)"),
        ({"step": partial(returns, 3)}, ValueError, r"step must return \(state, metrics\), got int"),
        ({"step": partial(returns, lambda state: (state, [1]))}, TypeError, "step must return metrics as a dict, got list"),
        ({"step": partial(returns, lambda state: (state, {"a": "b"}))}, TypeError, "numbers or arrays, got 'a': str"),
        (
            {"step": partial(returns, lambda state: ({"y": 0.0}, None))},
            ValueError,
            r"step must keep the structure of the state: it drops state\['x'\]",
        ),
        ({"step": partial(returns, lambda state: ({**state, "y": 0.0}, None))}, ValueError, r"it adds state\['y'\]"),
        (
            {"step": partial(returns, lambda state: ({"x": jnp.zeros(2)}, None))},
            ValueError,
            r"step must keep shapes and dtypes of the state: state\['x'\] was float32\[\] and becomes float32\[2\]",
        ),
        ({"after": ((1, lambda key, state: ({"x": 1}, None)),)}, ValueError, r"hook 0 of after must keep shapes and dtypes .* becomes int32\[\]"),
        ({"after": ((1, lambda key, state: state),)}, ValueError, r"hook 0 of after must return \(state, metrics\), got dict"),
    ],
)
def test_what_is_wrong_is_named(options, error, text):
    with pytest.raises(error, match=text):
        fit(**options)


def test_a_metric_has_one_owner():
    def hook(key, state):
        return state, {"a": 1.0}

    with pytest.raises(ValueError, match="hook 0 of after returns a metric 'a', which the step returns too"):
        fit(step=partial(returns, named), after=((1, hook),))
    with pytest.raises(ValueError, match="hook 1 of after returns a metric 'a', which hook 0 returns too"):
        fit(after=((1, hook), (1, hook)))


def named(state):
    return state, {"a": 0.0}


def test_a_batch_must_divide_among_the_devices():
    with jax.set_mesh(jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))):
        with pytest.raises(ValueError, match=r"batch\['x'\] has 6 rows, which do not divide among 4 devices"):
            fit(data=train.draws({"x": np.zeros((6, 2))}, DATA.draw))
        with pytest.raises(ValueError, match=r"batch\['x'\] has 3 rows, which do not divide among 4 devices"):
            fit(data=iter([{"x": np.zeros(3)}]))


def test_an_iterator_must_last():
    with pytest.raises(ValueError, match="data ended after 2 steps: it must give a batch for each step"):
        fit(data=iter([{"x": np.zeros(3)}] * 2), steps=3)


def test_an_iterator_cannot_be_traced():
    with pytest.raises(ValueError, match="an iterator runs outside of compiled code"):
        jax.vmap(lambda key: fit(key, data=iter([{"x": np.zeros(3)}])))(jax.random.split(jax.random.key(0), 2))
