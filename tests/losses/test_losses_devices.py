"""The losses over several devices, and under vmap: the numbers of one device, and gradients by the rule that `losses.mean` states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from cljax import losses

B, D, M = 16, 3, 8
RNG = np.random.default_rng(3)
W, X, Y = (RNG.normal(size=shape).astype(np.float32) for shape in ((D, D), (B, D), (B, D)))
QUEUE = RNG.normal(size=(M, D)).astype(np.float32)
WHERE = np.array([True] * 7 + [False] * 3 + [True] * 6)  # devices keep different numbers of rows
IDS = np.array([0, 1, 2, 3, 0, 5, 6, 7, 8, 9, 2, 11, 12, 3, 14, 15])
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 0, 1])
QUEUE_IDS = np.array([100, 2, 101, 102, 0, 103, 104, 105])
BANK = RNG.normal(size=(M, D)).astype(np.float32)
DATA = X, Y, WHERE, IDS, LABELS, BANK
FOUR = "info_nce", "symmetric_info_nce", "nt_xent", "sup_con"


def objective(w, t, x, y, where, ids, labels, bank, *, loss, axis_name):
    options = dict(where=where, ids=ids, labels=labels, bank=bank, negatives=QUEUE, negative_ids=QUEUE_IDS)
    found = loss(x @ w, y @ w, options, t, axis_name)
    if isinstance(found, losses.Masked):
        return losses.mean(found, axis_name=axis_name)
    return losses.mean(found, jnp.tile(where, len(found) // len(where)), axis_name) if found.ndim else found


def gradients(every_loss, axis_name, w, t, *data):
    """{name: value, gradients of w, t (averaged over devices) and of this device's inputs}."""
    found = {}
    for name, loss in every_loss.items():
        function = functools.partial(objective, loss=loss, axis_name=axis_name)
        value, (dw, dt, dx) = jax.value_and_grad(function, argnums=(0, 1, 2))(w, t, *data)
        found[name] = value, *(jax.lax.pmean((dw, dt), axis_name) if axis_name else (dw, dt)), dx
    return found


QUICKLY = {"xla_backend_optimization_level": 0}


@pytest.fixture(scope="module")
def on_one_device(every_loss):
    return jax.device_get(jax.jit(functools.partial(gradients, every_loss, None), compiler_options=QUICKLY)(W, np.float32(0.5), *DATA))


def mesh_of(devices):
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))


def over_devices(mode, every_loss, devices):
    function, split = functools.partial(gradients, every_loss, "data"), jax.P("data")
    if mode.startswith("shard_map"):
        specs, whole = (jax.P(), jax.P(), *[split] * len(DATA)), (jax.P(), jax.P(), jax.P(), split)
        out = dict.fromkeys(every_loss, whole)
        mapped = jax.shard_map(function, mesh=mesh_of(devices), in_specs=specs, out_specs=out, check_vma=mode == "shard_map")
        return jax.device_get(jax.jit(mapped, compiler_options=QUICKLY)(W, np.float32(0.5), *DATA))
    cut = [x.reshape(devices, -1, *x.shape[1:]) for x in DATA]
    mapping = jax.pmap if mode == "pmap" else lambda f, **options: jax.jit(jax.vmap(f, **options), compiler_options=QUICKLY)
    found = jax.device_get(mapping(function, axis_name="data", in_axes=(None, None, *[0] * len(DATA)))(W, np.float32(0.5), *cut))
    return {name: (*(x[0] for x in leaves[:3]), leaves[3].reshape(B, D)) for name, leaves in found.items()}


@pytest.mark.parametrize(
    "mode, names, devices",
    [("shard_map", None, 4)]
    + [("shard_map", FOUR, devices) for devices in (1, 2, 8)]
    + [(mode, FOUR, 4) for mode in ("shard_map without check_vma", "pmap", "vmap")],
)
def test_several_devices_give_the_numbers_of_one(every_loss, on_one_device, mode, names, devices):
    for name, found in over_devices(mode, {name: every_loss[name] for name in names or every_loss}, devices).items():
        times = 1 if mode == "shard_map" else devices  # how the gradient of device-local inputs compares with the global one
        for what, got, want in zip(("value", "of w", "of t", "of inputs"), found, on_one_device[name], strict=True):
            want = want * times if what == "of inputs" else want
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * max(1, np.abs(want).max()), err_msg=f"{name}: {what}")


def test_gradients_taken_outside_shard_map_are_whole(every_loss, on_one_device):
    def summed(*arguments):
        return sum(objective(*arguments, loss=every_loss[name], axis_name="data") for name in FOUR)

    mapped = jax.shard_map(summed, mesh=mesh_of(4), in_specs=(jax.P(), jax.P(), *[jax.P("data")] * len(DATA)), out_specs=jax.P())
    found = jax.jit(jax.grad(mapped, argnums=(0, 1, 2)), compiler_options=QUICKLY)(W, np.float32(0.5), *DATA)
    for got, *each in zip(found, *(on_one_device[name][1:] for name in FOUR), strict=True):
        np.testing.assert_allclose(got, sum(each), atol=1e-4)


def test_values_stay_with_their_device():
    """Row results are those of the local rows; nt_xent gives a device's two views side by side."""

    def values(axis_name, x, y):
        return tuple(loss(x, y, temperature=0.3, axis_name=axis_name) for loss in (losses.info_nce, losses.nt_xent))

    mapped = jax.shard_map(functools.partial(values, "data"), mesh=mesh_of(4), in_specs=jax.P("data"), out_specs=jax.P("data"))
    found = jax.jit(mapped, compiler_options=QUICKLY)(X, Y)
    one_way, both = jax.jit(functools.partial(values, None), compiler_options=QUICKLY)(X, Y)
    np.testing.assert_allclose(found[0], one_way, atol=2e-6)
    np.testing.assert_allclose(found[1], both.reshape(2, 4, 4).swapaxes(0, 1).ravel(), atol=2e-6)


def test_vmap_gives_the_values_of_each_problem(every_loss, on_one_device):
    def values(t, x, y):
        return {name: objective(W, t, x, y, *DATA[2:], loss=loss, axis_name=None) for name, loss in every_loss.items()}

    together = jax.jit(jax.vmap(values), compiler_options=QUICKLY)(np.float32([0.1, 0.5]), np.stack([Y, X]), np.stack([X, Y]))
    for name, found in together.items():
        assert found[0] != found[1]
        np.testing.assert_allclose(found[1], on_one_device[name][0], rtol=1e-5, err_msg=name)


def test_a_bank_that_every_device_holds_may_be_visited_in_blocks():
    def value(axis_name, x, y, bank):
        options = dict(temperature=0.3, negatives=bank, in_batch=False, implementation="blockwise", block_size=3)
        return losses.mean(losses.info_nce(x, y, axis_name=axis_name, **options), axis_name=axis_name)

    split = jax.P("data")
    mapped = jax.shard_map(functools.partial(value, "data"), mesh=mesh_of(4), in_specs=(split, split, jax.P()), out_specs=jax.P())
    found, expected = (jax.jit(jax.grad(f, argnums=(0, 2)), compiler_options=QUICKLY)(X, Y, BANK) for f in (mapped, functools.partial(value, None)))
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
