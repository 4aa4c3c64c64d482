"""Training runs: what a step sees, what is compiled, hooks, devices, populations."""

import operator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from cljax import train

CALLS = []


def counting(batch_size, state, batch, key):
    """A step without learning that tells what it is given."""
    return {"t": state["t"] + 1, "seen": state["seen"].at[batch["index"]].add(1)}, {"rows": len(batch["x"]), "key": jax.random.uniform(key)}


def numpy_run(toy, history, steps):
    """The toy problem in float64 numpy, with momentum written out, from the draws' own noise."""
    w, velocity, losses = np.asarray(toy.init()["params"]["w"], np.float64), 0.0, []
    for t in range(steps):
        index = (t * 8 + np.arange(8)) % 24
        x, y = toy.X[index].astype(np.float64), toy.X[index][:, ::-1].astype(np.float64) + history["shift"][t]
        residual = x @ w - y
        losses.append(np.mean(residual**2))
        velocity = 0.9 * velocity + 2 * x.T @ residual / residual.size
        w = w - 0.1 * velocity
    return w, losses


def test_training_equals_numpy_in_float64(toy):
    state, history = toy.fit()
    w, losses = numpy_run(toy, history, 10)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-4)
    np.testing.assert_allclose(state["params"]["w"], w, atol=1e-4)


def test_arms_and_seeds_share_one_program(toy):
    before = len(toy.TRACES)
    results = [toy.fit(rate=rate, seed=seed)[1]["loss"] for rate in (0.03, 0.3) for seed in range(3)]
    results.append(toy.fit(rate=0.7, steps=23, every=5)[1]["loss"])
    assert len(toy.TRACES) - before <= 1  # another test may have traced it already
    assert len({loss[-1] for loss in results}) == 7


def test_a_static_value_of_another_type_has_its_own_program():
    data = train.draws({"x": np.zeros((8, 4))}, partial(plain_draw, 4))
    results = [
        train.fit(jax.random.key(0), {"x": 0.0}, partial(typed, value), data, steps=1, progress=False)[0]["x"] for value in (1, True, 1.0, None)
    ]
    assert [float(x) for x in results] == [1, 2, 3, 4]


def typed(value, state, batch, key):
    kind = {int: 1.0, bool: 2.0, type(None): 4.0}.get(type(value), 3.0)  # a float is traced
    return {"x": kind}, None


def test_no_bit_depends_on_the_chunk(toy):
    assert toy.equal(toy.fit(chunk=100), toy.fit(chunk=3))


def test_step_and_name_separate_the_keys(toy):
    first, second = toy.fit()[1], toy.fit(name="other")[1]
    assert len(set(first["noise"])) == 10
    assert not set(first["noise"]) & set(second["noise"])


def test_history_has_steps_and_calls_as_numpy(toy):
    state, history = toy.fit()
    assert {name: value.shape for name, value in history.items()} == {"loss": (10,), "noise": (10,), "shift": (10,), "size": (3,), "draw": (3,)}
    assert all(isinstance(value, np.ndarray) for value in history.values())
    assert int(state["count"]) == 310  # the hook was called after 4, 8 and, the last, 10 steps
    np.testing.assert_allclose(history["size"][-1], 0.5 * np.sum(np.square(state["params"]["w"])), rtol=1e-6)


def test_the_callers_arrays_stay_valid_and_unchanged(toy):
    state, batch = toy.init(), jnp.asarray(toy.X)
    before = jax.tree.map(toy.plain, state)
    snapshots = []

    def keep(key, state):
        snapshots.append(state)
        return state, None

    data = train.draws({"x": batch, "y": batch}, partial(toy.draw, 8))
    result, _ = train.fit(jax.random.key(0), state, partial(toy.step, toy.Config()), data, steps=6, after=((2, keep),), progress=False)
    assert toy.equal(jax.tree.map(toy.plain, state), before)
    assert np.array_equal(batch, toy.X)
    assert [int(snapshot["count"]) for snapshot in snapshots] == [2, 4, 6]  # what a hook keeps is not written into
    assert not np.array_equal(result["params"]["w"], state["params"]["w"])


def test_epochs_without_replacement_show_each_row_once():
    data = train.draws({"x": np.arange(10)}, 4)
    state, history = train.fit(jax.random.key(0), {"t": 0, "seen": np.zeros(10, int)}, partial(counting, 4), data, steps=15, progress=False)
    assert int(state["t"]) == 15
    assert state["seen"].tolist() == [6] * 10  # 60 rows in 15 steps
    assert history["rows"].tolist() == [4] * 15


def test_four_devices_equal_one(toy):
    one = toy.fit()
    with jax.set_mesh(jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))):
        four = toy.fit()
        assert len(four[0]["params"]["w"].sharding.device_set) == 4
    assert toy.difference(one, four) < 2e-6


def test_explicit_axes_equal_one_device(toy):
    one = toy.fit()
    with jax.set_mesh(jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))):
        two = toy.fit()
    assert toy.difference(one, two) < 2e-6


def test_a_device_works_on_its_slice():
    data = train.draws({"x": np.arange(8)}, partial(plain_draw, 8))
    with jax.set_mesh(jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))):
        _, history = train.fit(jax.random.key(0), {"x": 0}, sliced, data, steps=2, progress=False)
    assert history["rows"].tolist() == [2, 2]
    assert history["sum"].tolist() == [28, 28]  # each row on one device


def sliced(state, batch, key):
    return state, {"rows": len(batch["x"]), "sum": lax.psum(jnp.sum(batch["x"]), "data")}


def test_a_vmapped_population_equals_single_runs(toy):
    keys, options = jax.random.split(jax.random.key(9), 2), dict(steps=10, after=((4, partial(toy.hook, 0.5)),))

    def run(key):
        return train.fit(key, toy.init(), partial(toy.step, toy.Config()), toy.data(), **options)

    states, histories = jax.jit(jax.vmap(run))(keys)
    assert histories["loss"].shape == (2, 10) and histories["size"].shape == (2, 3)
    for number, key in enumerate(keys):
        alone = train.fit(key, toy.init(), partial(toy.step, toy.Config()), toy.data(), progress=False, **options)
        assert toy.difference(jax.tree.map(operator.itemgetter(number), (states, histories)), alone) < 1e-5


def test_populations_of_two_arms_share_a_program(toy):
    def run(rate, scale):
        def one(key):
            after = ((4, partial(toy.hook, scale)),)
            return train.fit(key, toy.init(), partial(toy.step, toy.Config(rate)), toy.data(), steps=11, after=after)[1]["size"]

        return jax.vmap(one)(jax.random.split(jax.random.key(0), 2))

    before = len(toy.TRACES)
    first = run(0.1, 1.0)
    traced = len(toy.TRACES) - before
    second = run(0.3, 2.0)
    assert traced > 0 and len(toy.TRACES) - before == traced
    assert not np.allclose(first, second)


def test_a_traced_float_trains_a_population_of_arms(toy):
    def run(rate):
        return train.fit(jax.random.key(0), toy.init(), partial(toy.step, toy.Config(rate)), toy.data(), steps=3)[1]["loss"]

    losses = jax.jit(jax.vmap(run))(jnp.array([0.1, 0.3]))
    np.testing.assert_allclose(losses[1], toy.fit(3, rate=0.3)[1]["loss"], rtol=1e-5)


def convolve(dtype, state, batch, key):
    def objective(w):
        image = lax.conv_general_dilated(batch["x"][:, None], w, (1,), "SAME", preferred_element_type=dtype)
        return lax.pmean(jnp.mean(jnp.square(image[:, 0] - batch["x"])), "data")

    value, grads = jax.value_and_grad(jax.checkpoint(objective))(state["w"])
    w, _ = train.descend(optax.sgd(0.1), grads, state["w"], optax.sgd(0.1).init(state["w"]), axis_name="data")
    return {"w": w}, {"loss": value}


def matmul(state, batch, key):
    return state, {"loss": jnp.mean(batch["x"] @ batch["x"].T)}


def test_on_cpu_a_step_with_a_convolution_is_called_one_at_a_time(toy):
    from cljax.train import loops as module  # the module: what is compiled is no part of the interface

    trace = jax.make_jaxpr(lambda w: jax.jit(lambda w: lax.cond(w.sum() > 0, lambda w: lax.conv(w, w, (1,), "SAME"), lambda w: w, w))(w))(
        jnp.ones((1, 1, 3))
    )
    assert module.has_convolution(trace) and not module.has_convolution(jax.make_jaxpr(jnp.dot)(1.0, 2.0))
    data = train.draws({"x": toy.X}, partial(plain_draw, 8))
    options = dict(steps=7, progress=False)
    state, history = train.fit(jax.random.key(0), {"w": np.ones((1, 1, 3))}, partial(convolve, jnp.float32), data, **options)
    again = jax.jit(lambda key: train.fit(key, {"w": np.ones((1, 1, 3))}, partial(convolve, jnp.float32), data, steps=7))(jax.random.key(0))
    assert history["loss"][-1] < history["loss"][0]
    assert toy.difference((state, history), again) < 1e-5


def plain_draw(rows, key, arrays, t):
    return {"x": arrays["x"][:rows]}


def test_an_iterator_feeds_the_step(toy):
    batches = ({"x": toy.X[:8], "index": np.arange(8), "y": toy.X[:8, ::-1]} for _ in range(20))
    state, history = train.fit(jax.random.key(0), toy.init(), partial(toy.step, toy.Config()), batches, steps=9, progress=False)
    assert history["loss"].shape == (9,) and int(state["count"]) == 9
    assert sum(1 for _ in batches) == 11  # none is taken ahead of its step


def test_a_step_may_bind_arrays_keys_partials_and_keywords():
    step = partial(bound, np.ones(3), scale=partial(scaled, 2.0), key_bound=jax.random.key(3))
    data = train.draws({"x": np.zeros((8, 4))}, partial(plain_draw, 4))
    state, _ = train.fit(jax.random.key(0), {"x": 0.0}, partial(step, size=3), data, steps=2, progress=False)
    assert float(state["x"]) == pytest.approx(2 * (2 * 3 + 3 + float(jax.random.uniform(jax.random.key(3)))), rel=1e-6)


def scaled(factor, x):
    return factor * x


def bound(array, state, batch, key, *, scale, key_bound, size):
    return {"x": state["x"] + scale(jnp.sum(array)) + size + jax.random.uniform(key_bound)}, {}


def test_zero_steps_give_the_state_back(toy):
    state, history = toy.fit(0)
    assert toy.equal(state["params"], toy.init()["params"]) and history == {}


def test_logs_name_each_step_once(toy, tmp_path, capsys):
    seen = []
    _, history = toy.fit(folder=tmp_path, log=lambda step, row: seen.append((step, row)), progress=True)
    assert [step for step, _ in seen] == list(range(1, 11))
    assert seen[2][1] == {name: float(history[name][2]) for name in ("loss", "noise", "shift")}
    assert seen[3][1]["size"] == float(history["size"][0])
    lines = (tmp_path / "fit" / "metrics.csv").read_text().splitlines()
    table = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    assert [row["step"] for row in table] == [str(step) for step in range(1, 11)]
    np.testing.assert_array_equal(np.array([row["loss"] for row in table], np.float32), history["loss"])
    assert [row["step"] for row in table if row["size"]] == ["4", "8", "10"]
    assert list((tmp_path / "fit").glob("events.out.tfevents.*"))
    assert "10/10" in capsys.readouterr().err


def test_without_progress_nothing_is_printed(toy, capsys):
    toy.fit()
    assert capsys.readouterr() == ("", "")
