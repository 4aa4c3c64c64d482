"""The engine gives one device's numbers on 1, 2, 4 and 8, gathered or in a ring: values, gradients of parameters and of what lives on a device."""

import functools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cljax import pairwise
from cljax.pairwise import LogSumExp, Max, Sum

ROWS, COLUMNS, WIDTH = 16, 24, 4
P = jax.P


def arguments():
    draw = np.random.default_rng(0)
    arrays = {name: draw.normal(size=shape).astype(np.float32) for name, shape in {"a": (ROWS, WIDTH), "c": (COLUMNS, WIDTH)}.items()}
    weight = draw.normal(size=(WIDTH, WIDTH)).astype(np.float32)
    return {"weight": jnp.asarray(weight), "temperature": jnp.float32(0.5)}, arrays | {
        "label": np.arange(ROWS) % 5,
        "key label": np.arange(COLUMNS) % 7,
    }


def objective(parameters, local, axis_name, implementation, collective="gather"):
    """All reductions, and a scalar in which each of their entries has its own weight."""
    temperature = parameters["temperature"]
    a, c = (local[name] @ parameters["weight"] for name in ("a", "c"))

    def terms(scores, row, column, temperature):
        value = scores / temperature
        keep = (row[0] != column[0]) & (row[1] != column[1])
        return {kind.__name__ + str(axis): kind(value, where=keep, axis=axis) for kind in (LogSumExp, Sum, Max) for axis in (0, 1)}

    options = dict(axis_name=axis_name, implementation=implementation, collective=collective, block_size=5)
    place, key_place = pairwise.index(len(a), axis_name), pairwise.index(len(c), axis_name)
    results = pairwise.reduce(
        a, c, terms, rows=(place, local["label"]), columns=(key_place, local["key label"]), params=temperature, similarity="cosine", **options
    )

    def total(leaf, place):
        summed = (leaf * (1 + place % 5)).sum()
        return summed if axis_name is None else lax.psum(summed, axis_name)

    scalars = {}
    for name, result in results.items():
        where = place if name.endswith("1") else key_place
        scalars |= {f"{name} {n}": total(leaf, where) for n, leaf in enumerate(jax.tree.leaves(result))}
    return sum(scalar * (1 + n) for n, scalar in enumerate(scalars.values())), scalars


@functools.cache
def one_device():
    function = partial(objective, axis_name=None, implementation="dense")
    return jax.jit(jax.value_and_grad(function, (0, 1), has_aux=True, allow_int=True))(*arguments())


def compare(found, devices):
    (_, scalars), gradients = found
    (_, wanted), (of_parameters, of_local) = one_device()
    for name, value in wanted.items():
        np.testing.assert_allclose(scalars[name], value, rtol=2e-5, atol=1e-4, err_msg=name)
    for name, value in of_parameters.items():
        np.testing.assert_allclose(gradients[0][name], value, rtol=1e-4, atol=1e-4 * np.abs(value).max(), err_msg=name)
    for name in ("a", "c"):  # what lives on one device
        np.testing.assert_allclose(
            gradients[1][name], devices * of_local[name], rtol=1e-4, atol=1e-4 * devices * np.abs(of_local[name]).max(), err_msg=name
        )


def local_gradient(axis_name, implementation, collective):
    """As a training step takes it on each device, with the parameters' gradients averaged."""

    def compute(parameters, local):
        function = partial(objective, axis_name=axis_name, implementation=implementation, collective=collective)
        found, gradients = jax.value_and_grad(function, (0, 1), has_aux=True, allow_int=True)(parameters, local)
        floats = {name: gradients[1][name] for name in "ac"}
        return found, (jax.tree.map(lambda leaf: lax.pmean(leaf, axis_name), gradients[0]), floats)

    return compute


def mesh(devices):
    return jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices])


GATHER = [(1, "blockwise", "gather"), (2, "blockwise", "gather"), (4, "blockwise", "gather"), (4, "dense", "gather"), (8, "blockwise", "gather")]


@pytest.mark.parametrize(
    "check_vma, devices, implementation, collective",
    [
        *((check_vma, *case) for check_vma in (True, False) for case in GATHER),
        (True, 4, "blockwise", "ring"),
        (False, 2, "blockwise", "ring"),
        (False, 8, "dense", "ring"),
    ],
)
def test_shard_map_with_the_gradient_taken_inside(check_vma, devices, implementation, collective):
    specs = (P(), P("data"))
    compute = local_gradient("data", implementation, collective)
    found = jax.jit(jax.shard_map(compute, mesh=mesh(devices), in_specs=specs, out_specs=(P(), specs), check_vma=check_vma))(*arguments())
    compare(found, 1 if check_vma else devices)


@pytest.mark.parametrize("check_vma, collective", [(True, "gather"), (False, "gather"), (True, "ring")])
def test_shard_map_with_the_gradient_taken_outside(check_vma, collective):
    function = partial(objective, axis_name="data", implementation="blockwise", collective=collective)
    inside = jax.shard_map(function, mesh=mesh(4), in_specs=(P(), P("data")), out_specs=P(), check_vma=check_vma)
    compare(jax.jit(jax.value_and_grad(inside, (0, 1), has_aux=True, allow_int=True))(*arguments()), 1)


@pytest.mark.parametrize(
    "transform, devices, implementation, collective",
    [
        *((transform, *case) for transform in (jax.pmap, jax.vmap) for case in GATHER),
        (jax.pmap, 4, "blockwise", "ring"),
        (jax.vmap, 2, "blockwise", "ring"),
    ],
)
def test_pmap_and_named_vmap(transform, devices, implementation, collective):
    parameters, local = arguments()
    split = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), local)
    options = {"devices": jax.devices()[:devices]} if transform is jax.pmap else {}
    compute = local_gradient("data", implementation, collective)
    found, (of_parameters, of_local) = jax.jit(transform(compute, axis_name="data", in_axes=(None, 0), **options))(parameters, split)
    found, of_parameters = jax.tree.map(lambda leaf: leaf[0], (found, of_parameters))
    compare((found, (of_parameters, jax.tree.map(lambda leaf: leaf.reshape(-1, WIDTH), of_local))), devices)


def info_nce(queries, keys, collective="ring", axis_name="data"):
    def terms(scores, row, column, _):
        return pairwise.LogSumExp(scores), pairwise.LogSumExp(scores, axis=0)

    rows, columns = pairwise.reduce(queries, keys, terms, axis_name=axis_name, collective=collective, block_size=64)
    return lax.psum((rows + columns).sum(), axis_name)


def compiled(devices, size, width, collective):
    split = jax.shard_map(partial(info_nce, collective=collective), mesh=mesh(devices), in_specs=P("data"), out_specs=P())
    shape = jax.ShapeDtypeStruct((size, width), jnp.float32)
    return jax.jit(jax.grad(split, (0, 1))).lower(shape, shape).compile()


def test_a_ring_moves_no_more_than_three_times_the_keys_of_the_others():
    devices, size, width = 2, 512, 64
    shapes = re.findall(r"= ([^=]*?) collective-permute(?:-start)?\(", compiled(devices, size, width, "ring").as_text())
    moved = sum(4 * np.prod([int(n) for n in shape.split(",")]) for shape in re.findall(r"f32\[([\d,]+)\]", " ".join(shapes)))
    keys = (
        4 * size // devices * width
    )  # of one device; they travel forward, again backward unless they are still there, and their gradient comes home
    assert 2 * keys * (devices - 1) <= moved <= 3.1 * keys * (devices - 1)  # and what is known of each key


def test_a_ring_holds_less_than_all_keys():
    ring, gather = (compiled(8, 4096, 256, collective).memory_analysis().temp_size_in_bytes for collective in ("ring", "gather"))
    assert ring < 0.6 * gather


def test_what_is_known_of_the_keys_travels_with_them_whatever_its_kind():
    local = arguments()[1]
    noise = jax.random.split(jax.random.key(0), COLUMNS)

    def terms(scores, row, column, _):
        keys = jnp.broadcast_to(column["noise"], scores.shape)
        return {"max": Max(scores + jax.vmap(jax.vmap(jax.random.uniform))(keys), where=column["even"]), "count": Sum(1.0, column["even"], axis=0)}

    def found(a, c, even, noise, **how):
        return pairwise.reduce(a, c, terms, columns={"noise": noise, "even": even}, **how)

    split = jax.shard_map(partial(found, axis_name="data", collective="ring"), mesh=mesh(4), in_specs=P("data"), out_specs=P("data"), check_vma=False)
    inputs = local["a"], local["c"], jnp.arange(COLUMNS) % 2 == 0, noise
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), jax.jit(split)(*inputs), jax.jit(found)(*inputs))


@pytest.mark.parametrize("collective, k", [("gather", 5), ("ring", 5), ("ring", 9)])  # a device holds 6 keys
def test_keys_on_many_devices_are_all_searched(collective, k):
    _, local = arguments()
    place, key_place = np.arange(ROWS, dtype=np.int32), np.arange(COLUMNS, dtype=np.int32)
    queries, keys = (jnp.round(2 * local[name]) for name in "ac")  # whole numbers: ties are exact, and stand on several devices

    def nearest(queries, keys, place, key_place, **how):
        return pairwise.top_k(queries, keys, k, rows=place, columns=key_place, where=lambda r, c: r != c, **how)

    split = jax.shard_map(partial(nearest, axis_name="data", collective=collective), mesh=mesh(4), in_specs=P("data"), out_specs=P("data"))

    def squares(queries, keys, function):
        scores, indices = function(queries, keys, place, key_place)
        return (scores**2).sum(), (scores, indices)

    one, four = (jax.jit(jax.value_and_grad(partial(squares, function=f), (0, 1), has_aux=True))(queries, keys) for f in (nearest, split))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), four, one)
    np.testing.assert_array_equal(four[0][1][1], one[0][1][1])
