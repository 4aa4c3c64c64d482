"""The best parameters of a run are kept in its state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import train
from cljax.train import stage

SCORES = jnp.array([1.0, jnp.nan, 3.0, 2.0, 3.0])
NUMBERS = jnp.nan_to_num(SCORES)
DATA = train.draws({"x": np.ones((4, 2), np.float32)}, 2)


def step(state, batch, key):
    return state | {"params": {"w": state["params"]["w"] + 1}, "t": state["t"] + 1}, {"loss": jnp.sum(batch["x"])}


def evaluate(scores, key, state):
    return state, {"score": scores[state["t"] // 2 - 1]}


def run(scores=SCORES, mode="max", key=None, **options):
    params = {"w": jnp.zeros(2)}
    state = {"params": params, "t": 0, "best": train.best_slot(params)}
    after = ((2, train.keep_best(partial(evaluate, scores), "score", mode=mode)),)
    key = jax.random.key(0) if key is None else key
    return train.fit(key, state, step, DATA, **{"steps": 10, "after": after, "progress": False, **options})


@pytest.mark.parametrize(
    "scores, mode, steps, value",
    [
        (SCORES, "max", 6, 3.0),  # of equals the first
        (SCORES, "min", 2, 1.0),
        (jnp.array([jnp.nan, 5.0, jnp.nan, -jnp.inf, 4.0]), "max", 4, 5.0),
        (jnp.full(5, jnp.nan), "max", 0, jnp.nan),  # none
    ],
)
def test_the_best_are_kept_and_nan_never_wins(scores, mode, steps, value):
    state, history = run(scores, mode)
    assert state["best"].params["w"].tolist() == [steps, steps] and state["params"]["w"].tolist() == [10, 10]
    np.testing.assert_equal(float(state["best"].value), float(value))
    np.testing.assert_array_equal(history["score"], scores)


def test_a_stopped_run_goes_on_to_the_same_best(tmp_path, toy):
    class Stop(Exception):
        pass

    def log(number, row):
        if number == 6:
            raise Stop

    with pytest.raises(Stop):
        run(NUMBERS, folder=tmp_path, log=log, chunk=2)
    steps = []
    result = run(NUMBERS, folder=tmp_path, log=lambda number, row: steps.append(number))
    assert steps[0] > 6  # the best lay behind
    assert toy.equal(result, run(NUMBERS)) and result[0]["best"].params["w"].tolist() == [6, 6]


def test_a_traced_run_keeps_the_same(toy):
    traced = jax.jit(lambda key: run(NUMBERS, key=key))(jax.random.key(0))
    assert toy.difference(traced, run(NUMBERS)) == 0


def test_other_code_of_the_evaluation_is_noticed(tmp_path, monkeypatch):
    run(NUMBERS, folder=tmp_path)
    monkeypatch.setattr(stage, "_code", lambda function: function.__name__.replace("evaluate", "changed"))
    with pytest.warns(UserWarning, match="was saved by another file of the step, the draw or a hook"):
        run(NUMBERS, folder=tmp_path)


@pytest.mark.errors
def test_what_cannot_be_kept_is_named():
    for arguments, options, error, text in [
        ((3, "score"), {}, TypeError, "hook must be a function, got int"),
        ((evaluate, None), {}, TypeError, "metric must be a string, got NoneType"),
        ((evaluate, "score"), {"mode": "maximum"}, ValueError, "mode must be one of 'max', 'min', got 'maximum'; did you mean 'max'"),
    ]:
        with pytest.raises(error, match=text):
            train.keep_best(*arguments, **options)
    hook = train.keep_best(lambda key, state: (state, {"score": 1.0, "curve": jnp.ones(3)}), "scores")
    with pytest.raises(ValueError, match=r"state must be a dict with 'params' and 'best': begin with state\['best'\] = train.best_slot"):
        hook(jax.random.key(0), {"params": 1.0})
    state = {"params": 1.0, "best": train.best_slot(1.0)}
    with pytest.raises(ValueError, match="metric must be one of the hook's, 'score', 'curve'; got 'scores'; did you mean 'score'"):
        hook(jax.random.key(0), state)
    with pytest.raises(ValueError, match=r"metric must be a scalar, got 'curve' of shape \[3\]"):
        train.keep_best(lambda key, state: (state, {"curve": jnp.ones(3)}), "curve")(jax.random.key(0), state)
