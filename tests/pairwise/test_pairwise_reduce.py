"""pairwise.reduce against float64 numpy: values, gradients, masks, ties, what is not finite, and the transformations of JAX."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cljax import pairwise
from cljax.pairwise import LogSumExp, Max, Sum

SIMILARITIES = ("dot", "cosine", "sqeuclidean")
BOTH = pytest.mark.parametrize("implementation", ("dense", "blockwise"))


def problem(rows=11, columns=7, width=4, seed=0):
    draw = np.random.default_rng(seed)
    return {
        "queries": draw.normal(size=(rows, width)),
        "keys": draw.normal(size=(columns, width)),
        "gain": draw.normal(size=(rows, 2)),
        "shift": draw.normal(size=columns),
        "temperature": np.float64(0.4),
    }


def terms(scores, row, column, temperature):
    value = scores / temperature + row["gain"][..., 1] * column["shift"]
    keep = row["label"] != column["label"]
    return {
        "lse": LogSumExp(value, where=keep),
        "column lse": LogSumExp(value, axis=0),
        "sum": Sum(value * value, where=keep, axis=0),
        "row sum": Sum(column["shift"]),
        "max": Max(value, where=keep),
        "column max": Max(value, axis=0),
    }


def labels(count):
    return jnp.arange(count) % 3


def found(values, similarity, implementation, block_size=4, terms=terms):
    return pairwise.reduce(
        values["queries"],
        values["keys"],
        terms,
        rows={"gain": values["gain"], "label": labels(len(values["queries"]))},
        columns={"shift": values["shift"], "label": labels(len(values["keys"]))},
        params=values["temperature"],
        similarity=similarity,
        implementation=implementation,
        block_size=block_size,
    )


def expected(values, similarity):
    """The same in float64 numpy, from the definitions."""
    q, k = values["queries"], values["keys"]
    if similarity == "cosine":
        q, k = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300) for x in (q, k))
    scores = -((q[:, None] - k[None]) ** 2).sum(-1) if similarity == "sqeuclidean" else q @ k.T
    value = scores / values["temperature"] + values["gain"][:, 1:] * values["shift"]
    keep = (np.arange(len(q)) % 3)[:, None] != np.arange(len(k)) % 3
    masked = np.where(keep, value, -np.inf)
    return {
        "lse": np.log(np.exp(masked - masked.max(1, keepdims=True)).sum(1)) + masked.max(1),
        "column lse": np.log(np.exp(value - value.max(0)).sum(0)) + value.max(0),
        "sum": np.where(keep, value * value, 0).sum(0),
        "row sum": np.broadcast_to(values["shift"].sum(), len(q)),
        "max": (masked.max(1), masked.argmax(1)),
        "column max": (value.max(0), value.argmax(0)),
    }


def weighted(results):
    """A scalar in which every float result counts, each entry differently."""
    floats = [leaf for leaf in jax.tree.leaves(results) if not np.issubdtype(leaf.dtype, np.integer)]
    return sum((leaf * (1 + np.arange(leaf.shape[0]) % 5)).sum() for leaf in floats)


def results_and_gradient(values, similarity, implementation, block_size=4):
    def both(values):
        results = found(values, similarity, implementation, block_size)
        return weighted(results), results

    (_, results), gradient = jax.jit(jax.value_and_grad(both, has_aux=True))(values)
    return results, gradient


def differences(function, values):
    """The gradient by central differences in float64."""
    gradient = {}
    for name, array in values.items():
        gradient[name] = np.zeros(np.shape(array))
        for place in np.ndindex(np.shape(array)):
            ends = []
            for step in (1e-6, -1e-6):
                moved = np.array(array)
                moved[place] += step
                ends.append(function(values | {name: moved}))
            gradient[name][place] = (ends[0] - ends[1]) / 2e-6
    return gradient


def float32(values):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), values)


def largest_error(found, wanted):
    return max(
        np.abs(np.asarray(f) - w).max() / max(np.abs(w).max(), 1e-30) for f, w in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    )


@pytest.mark.parametrize("similarity", SIMILARITIES)
@BOTH
def test_values_and_gradients_equal_float64(similarity, implementation):
    values = problem()
    results, gradient = results_and_gradient(float32(values), similarity, implementation)
    wanted = expected(values, similarity)
    for name, result in results.items():
        for f, w in zip(jax.tree.leaves(result), jax.tree.leaves(wanted[name]), strict=True):
            np.testing.assert_allclose(f, w, atol=2e-5, rtol=1e-6, err_msg=name)
    reference = differences(lambda values: weighted(expected(values, similarity)), values)
    for name in values:
        np.testing.assert_allclose(gradient[name], reference[name], atol=1e-3 * np.abs(reference[name]).max(), err_msg=name)


@pytest.mark.parametrize("rows, columns, block_size", [(1, 1, 3), (1, 9, 4), (9, 1, 4), (8, 8, 4), (5, 6, 1), (5, 6, 100)])
def test_blocks_of_any_size_give_the_dense_numbers(rows, columns, block_size):
    values = float32(problem(rows, columns))
    dense, blocks = (jax.jit(partial(found, similarity="dot", implementation=name, block_size=block_size))(values) for name in ("dense", "blockwise"))
    for d, b in zip(jax.tree.leaves(dense), jax.tree.leaves(blocks), strict=True):
        np.testing.assert_allclose(d, b, rtol=2e-6, atol=2e-6)


@BOTH
def test_nothing_kept_gives_minus_infinity_or_zero_and_zero_gradients(implementation):
    x = jnp.ones((3, 2))

    def nothing(scores, row, column, params):
        return LogSumExp(scores, where=row > 0), Sum(scores, where=row > 0), Max(scores, where=row > 0)

    def reduced(x):
        return pairwise.reduce(x, x, nothing, rows=jnp.array([0, 1, 0]), implementation=implementation, block_size=2)

    lse, total, (highest, place) = reduced(x)
    assert lse[0] == highest[0] == -jnp.inf and total[0] == place[0] == 0
    assert total[1] == 6 and highest[1] == 2
    gradient = jax.jacobian(lambda x: [jnp.where(jnp.array([1, 0, 1]), leaf, 0).sum() for leaf in (lambda r: (r[0], r[1], r[2][0]))(reduced(x))])(x)
    assert all(np.all(leaf == 0) for leaf in gradient)


@BOTH
def test_maximum_takes_the_first_of_equals_and_only_it_gets_the_gradient(implementation):
    queries, keys = jnp.ones((4, 2)), jnp.ones((5, 2))

    def highest(queries, keys):
        return pairwise.reduce(queries, keys, lambda s, *_: (Max(s), Max(s, axis=0)), implementation=implementation, block_size=2)

    (_, by_row), (_, by_column) = highest(queries, keys)
    assert np.all(by_row == 0) and np.all(by_column == 0)
    gradient = jax.grad(lambda keys: highest(queries, keys)[0][0].sum())(keys)
    np.testing.assert_array_equal(gradient, np.array([[4, 4]] + [[0, 0]] * 4))


@BOTH
@pytest.mark.parametrize("bad", (np.nan, np.inf))
def test_what_is_not_finite_surfaces(implementation, bad):
    queries = jnp.ones((6, 2)).at[4, 0].set(bad)

    lse, column_lse, total, (highest, place) = pairwise.reduce(
        queries,
        jnp.ones((5, 2)),
        lambda s, *_: (LogSumExp(s), LogSumExp(s, axis=0), Sum(s), Max(s, axis=0)),
        implementation=implementation,
        block_size=4,
    )
    for row in (lse, total):
        np.testing.assert_array_equal(row[4], bad)
        assert np.all(np.isfinite(np.delete(row, 4)))
    assert np.all(~np.isfinite(column_lse)) and np.all(~np.isfinite(highest)) and np.all(place == 4)


@BOTH
def test_narrow_floats_give_float32_results_of_the_rounded_inputs(implementation):
    values = problem()
    rounded = {name: jnp.asarray(x, jnp.bfloat16) if name in ("queries", "keys") else jnp.asarray(x, jnp.float32) for name, x in values.items()}
    results, gradient = results_and_gradient(rounded, "cosine", implementation)
    wanted = expected({name: np.asarray(x, np.float64) for name, x in rounded.items()}, "cosine")
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {jnp.dtype("float32"), jnp.dtype("int32")}
    for f, w in zip(jax.tree.leaves(results), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(f, w, atol=2e-5, rtol=1e-6)
    assert gradient["queries"].dtype == jnp.bfloat16 and gradient["temperature"].dtype == jnp.float32


def test_float64_inputs_stay_float64():
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        values = problem()
        results = found(jax.tree.map(jnp.asarray, values), "sqeuclidean", "blockwise")
        assert largest_error(results, expected(values, "sqeuclidean")) < 1e-13


@BOTH
def test_closed_over_values_are_differentiated_also_under_jit_and_vmap(implementation):
    values = float32(problem())
    mask = jnp.arange(7) % 2

    def loss(temperature, scale, mask):
        def terms(scores, row, column, params):
            return LogSumExp(scores / temperature * scale, where=column != mask[0])

        return pairwise.reduce(values["queries"], values["keys"], terms, columns=labels(7), implementation=implementation, block_size=4).sum()

    points = jnp.array([0.3, 0.7]), jnp.array([1.0, 1.3]), jnp.stack([mask, 1 - mask])
    batched = jax.vmap(jax.grad(loss, (0, 1)))(*points)
    for n in range(2):
        single = jax.jit(jax.grad(loss, (0, 1)))(*(x[n] for x in points))
        slope = (loss(points[0][n] + 1e-2, points[1][n], points[2][n]) - loss(points[0][n] - 1e-2, points[1][n], points[2][n])) / 2e-2
        np.testing.assert_allclose(single[0], slope, rtol=5e-3)
        np.testing.assert_allclose([x[n] for x in batched], single, rtol=1e-5)


def two_reductions(scores, row, column, temperature):
    value = scores / temperature + row["gain"][..., 1] * column["shift"]
    return LogSumExp(value, where=row["label"] != column["label"]), Sum(value * value, axis=0)


def test_second_derivatives_and_checkpoint_equal_the_dense_ones():
    values = float32(problem())

    def norm(values, implementation, wrap):
        loss = wrap(lambda values: weighted(found(values, "cosine", implementation, terms=two_reductions)))
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(jax.grad(loss)(values)))

    dense, blocks = (
        jax.jit(jax.value_and_grad(partial(norm, implementation=implementation, wrap=wrap)))(values)
        for implementation, wrap in (("dense", lambda f: f), ("blockwise", jax.checkpoint))
    )
    assert largest_error(blocks, jax.tree.map(np.asarray, dense)) < 2e-4


@BOTH
def test_a_statistic_of_a_first_pass_is_differentiable_in_the_second(implementation):
    values = float32(problem())

    def mean_probability(queries, implementation):
        reduce = partial(pairwise.reduce, queries, values["keys"], implementation=implementation, block_size=4)
        total = reduce(lambda s, *_: LogSumExp(s))
        return reduce(lambda s, row, *_: Sum(jnp.exp(s - row) ** 2), rows=total).sum()

    queries = values["queries"]
    softmax = jax.grad(lambda q: (jax.nn.softmax(q @ values["keys"].T, axis=1) ** 2).sum())(queries)
    np.testing.assert_allclose(jax.grad(mean_probability)(queries, implementation), softmax, atol=1e-5)


@BOTH
def test_squared_distances_far_from_the_origin_are_exact(implementation):
    draw = np.random.default_rng(0)
    x, y = 1000 + draw.normal(size=(5, 3)).astype(np.float32), 1000 + draw.normal(size=(6, 3)).astype(np.float32)
    wanted = -((x[:, None].astype(np.float64) - y[None]) ** 2).sum(-1)
    lowest = pairwise.reduce(x, y, lambda s, *_: Max(s), similarity="sqeuclidean", implementation=implementation, block_size=2)
    np.testing.assert_allclose(lowest[0], wanted.max(1), atol=1e-5)
    total = pairwise.reduce(x, y, lambda s, *_: Sum(s), similarity="sqeuclidean", implementation=implementation, block_size=2)
    np.testing.assert_allclose(total, wanted.sum(1), rtol=1e-6)
    same = pairwise.reduce(x, x, lambda s, *_: Max(s), similarity="sqeuclidean", implementation=implementation, block_size=2)
    assert np.all(same[0] <= 0)


def test_without_keys_there_is_nothing_to_find():
    terms = {"lse": LogSumExp, "sum": Sum, "max": Max}
    found = pairwise.reduce(jnp.ones((2, 3)), jnp.ones((0, 3)), lambda scores, *_: {name: term(scores) for name, term in terms.items()})
    assert found["lse"].tolist() == found["max"][0].tolist() == [-np.inf] * 2
    assert found["sum"].tolist() == [0, 0] and found["max"][1].tolist() == [-1, -1]


@BOTH
def test_zero_vectors_have_cosine_zero_and_zero_gradient(implementation):
    x = jnp.zeros((4, 3)).at[0].set(1.0)
    total, gradient = jax.value_and_grad(
        lambda x: pairwise.reduce(x, None, lambda s, *_: LogSumExp(s / 0.01), similarity="cosine", implementation=implementation, block_size=3).sum()
    )(x)
    np.testing.assert_allclose(total, 100 + 3 * np.log(4), rtol=1e-5)
    assert np.all(gradient[1:] == 0) and np.all(np.abs(gradient[0]) < 1e-4)


def test_without_keys_the_queries_are_their_own():
    x = float32(problem())["queries"]
    place = pairwise.index(len(x))

    def others(keys, columns):
        return lambda x: pairwise.reduce(
            x, keys(x), lambda s, r, c, _: LogSumExp(s, where=r != c), rows=place, columns=columns, implementation="blockwise", block_size=4
        ).sum()

    one, two = others(lambda x: None, None), others(lambda x: x, place)
    np.testing.assert_allclose(one(x), two(x), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(one)(x), jax.grad(two)(x), atol=1e-6)


def own_terms(scores, row, column, temperature):
    value = scores / temperature + row["gain"][..., 1] * column["gain"][..., 0]  # not symmetric
    keep = (row["place"] != column["place"]) & (row["label"] != column["label"])
    every = {kind.__name__ + str(axis): kind(value, keep, axis) for kind in (LogSumExp, Sum, Max) for axis in (0, 1)}
    return every | {"plain": LogSumExp(scores), "plain column": LogSumExp(scores, axis=0)}


@pytest.mark.parametrize("similarity, rows, block_size", [("dot", 11, 4), ("cosine", 8, 2), ("sqeuclidean", 9, 16), ("cosine", 10, 5)])
def test_half_of_the_blocks_serve_where_the_queries_are_their_own_keys(similarity, rows, block_size):
    values = {name: array for name, array in float32(problem(rows)).items() if name in ("queries", "gain", "temperature")}

    def both(values, implementation):
        leaves = {"gain": values["gain"], "label": labels(rows), "place": pairwise.index(rows)}
        how = dict(rows=leaves, params=values["temperature"], similarity=similarity, implementation=implementation, block_size=block_size)
        results = pairwise.reduce(values["queries"], None, own_terms, **how)
        return weighted(results), results

    program = jax.jit(jax.value_and_grad(both, has_aux=True), static_argnums=1)
    (_, wanted), wanted_gradient = jax.tree.map(np.asarray, program(values, "dense"))
    (_, results), gradient = program(values, "blockwise")
    assert largest_error(results, wanted) < 1e-5
    assert largest_error(gradient, wanted_gradient) < 1e-4
    count = -(-rows // block_size)
    if count > 1:
        assert f'"n":"{count * (count + 1) // 2}"' in program.lower(values, "blockwise").compile().as_text()  # trips of the loop


def test_scores_that_are_kept_give_the_same_numbers_also_for_second_derivatives(monkeypatch):
    values = float32(problem())

    def norm(implementation, values):
        loss = lambda values: weighted(found(values, "cosine", implementation, terms=two_reductions))  # noqa: E731
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(jax.grad(loss)(values)))

    dense = jax.jit(jax.value_and_grad(partial(norm, "dense")))(values)
    monkeypatch.setattr(pairwise.engine, "_DENSE_ON_CPU", 0)
    monkeypatch.setattr(pairwise.engine, "_DENSE_UP_TO", 0)
    monkeypatch.setattr(pairwise.engine, "_KEPT_FROM", 1)
    kept_of, reduce = [], pairwise.blockwise.reduce
    monkeypatch.setattr(pairwise.blockwise, "reduce", lambda *inputs, keep, **how: (kept_of.append(keep), reduce(*inputs, keep=keep, **how))[1])
    kept = jax.jit(jax.value_and_grad(partial(norm, "auto")))(values)
    assert largest_error(kept, jax.tree.map(np.asarray, dense)) < 2e-4
    assert kept_of and all(kept_of)


def test_auto_holds_the_scores_of_a_single_block_and_takes_blocks_where_their_size_is_given():
    def shapes(rows, **how):
        loss = lambda x: pairwise.reduce(x, x, lambda s, *_: LogSumExp(s), **how).sum()  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(jax.ShapeDtypeStruct((rows, 8), jnp.float32)).as_text()

    assert "stablehlo.while" not in shapes(1024)
    assert "1024x1024" not in shapes(1024, block_size=256)
    assert "2048x2048" not in shapes(2048)


@pytest.mark.parametrize("temperature", (1.0, 0.01, 0.001))  # the last: scores of a block up to 2000 apart
@pytest.mark.parametrize("masked", (False, True))
@pytest.mark.parametrize("few", (0, 2**16))  # with 0 half of a block's rows say where its values lie
def test_one_exponential_for_both_directions_is_exact_however_far_apart_the_scores(temperature, masked, few, monkeypatch):
    monkeypatch.setattr(pairwise.accumulate, "_FEW", few)
    values = problem(rows=20, columns=20)

    def loss(q, k, numpy=jnp):
        q, k = (x / numpy.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
        return q @ k.T / temperature, q, k

    def both(q, k):
        def directions(scores, row, column, _):
            value, where = scores / temperature, (row != column) & (row != 2) if masked else None
            return LogSumExp(value, where), LogSumExp(value, where, axis=0)

        place = pairwise.index(20)
        found = pairwise.reduce(q, k, directions, rows=place, columns=place, similarity="cosine", implementation="blockwise", block_size=16)
        return sum(jnp.where(jnp.isfinite(x), x, 0) @ jnp.arange(1.0, 21) for x in found), found

    (_, results), gradient = jax.value_and_grad(both, (0, 1), has_aux=True)(*(jnp.asarray(values[name], jnp.float32) for name in ("queries", "keys")))

    def reference(both):
        value, *_ = loss(both["queries"], both["keys"], np)
        where = ~np.eye(20, dtype=bool) & (np.arange(20) != 2)[:, None] if masked else np.ones((20, 20), bool)
        value = np.where(where, value, -np.inf)
        highest = [np.maximum(value.max(axis, keepdims=True), -1e300) for axis in (1, 0)]
        with np.errstate(divide="ignore"):
            return [np.log(np.exp(value - top).sum(axis)) + top.squeeze(axis) for top, axis in zip(highest, (1, 0), strict=True)]

    chosen = {name: np.asarray(np.float32(values[name]), np.float64) for name in ("queries", "keys")}
    for found_, wanted in zip(results, reference(chosen), strict=True):
        np.testing.assert_allclose(found_, wanted, atol=2e-5 + 2e-7 / temperature)
    wanted = differences(lambda v: sum(np.where(np.isfinite(x), x, 0) @ np.arange(1.0, 21) for x in reference(v)), chosen)
    for found_, name in zip(gradient, ("queries", "keys"), strict=True):
        np.testing.assert_allclose(found_, wanted[name], atol=1e-3 * np.abs(wanted[name]).max())


def test_a_row_far_above_those_that_tell_where_the_values_lie_is_exact(monkeypatch):
    monkeypatch.setattr(pairwise.accumulate, "_FEW", 0)
    high = jnp.zeros((16, 2)).at[5, 0].set(100.0)  # every second row is asked
    found = pairwise.reduce(high, jnp.ones((16, 2)), lambda s, *_: (LogSumExp(s), LogSumExp(s, axis=0)), implementation="blockwise")
    np.testing.assert_allclose(found[0], np.where(np.arange(16) == 5, 100, 0) + np.log(16), rtol=1e-6)
    np.testing.assert_allclose(found[1], 100, rtol=1e-6)


def test_nan_surfaces_through_the_exponential_of_both_directions():
    x = jnp.ones((6, 2)).at[4, 0].set(jnp.nan)
    found = pairwise.reduce(x, jnp.ones((6, 2)), lambda s, *_: (LogSumExp(s), LogSumExp(s, axis=0)), implementation="blockwise", block_size=3)
    assert np.isnan(found[0]).tolist() == [False] * 4 + [True, False] and np.isnan(found[1]).all()


@BOTH
def test_a_key_that_is_not_finite_spoils_its_own_distances_alone(implementation):
    keys = jnp.ones((5, 2)).at[1, 0].set(jnp.nan)
    nearest = partial(pairwise.reduce, jnp.zeros((3, 2)), keys, similarity="sqeuclidean", implementation=implementation, block_size=2)
    np.testing.assert_array_equal(nearest(lambda s, *_: Sum(s, axis=0)), [-6, np.nan, -6, -6, -6])


@pytest.mark.parametrize("similarity", ("dot", "cosine"))
def test_products_of_bfloat16_are_those_of_the_rounded_inputs(similarity, monkeypatch):
    monkeypatch.setattr(pairwise.similarity, "narrow", lambda similarity, queries, keys: queries.dtype == jnp.bfloat16)
    values = float32(problem())
    narrow = {name: values[name].astype(jnp.bfloat16) for name in ("queries", "keys")}
    rounded = {name: x.astype(jnp.float32) for name, x in narrow.items()}
    results, gradient = results_and_gradient(values | narrow, similarity, "blockwise")
    wanted, wanted_gradient = results_and_gradient(values | rounded, similarity, "dense")
    assert largest_error(results, jax.tree.map(np.asarray, wanted)) < 1e-5
    for name in ("queries", "keys"):
        assert gradient[name].dtype == jnp.bfloat16
    assert largest_error(jax.tree.map(lambda x: np.asarray(x, np.float32), gradient), jax.tree.map(np.asarray, wanted_gradient)) < 1e-2


def test_forward_mode_works_densely():
    values = float32(problem())
    loss = jax.jit(lambda t: weighted(found(values | {"temperature": t}, "dot", "dense")))
    slope = jax.jvp(loss, (values["temperature"],), (jnp.ones(()),))[1]
    gradient = jax.grad(loss)(values["temperature"])
    np.testing.assert_allclose(slope, gradient, rtol=1e-5)


def test_blockwise_memory_grows_with_the_block_and_not_with_the_pairs():
    def loss(queries, keys, implementation):
        return pairwise.reduce(
            queries,
            keys,
            lambda s, *_: (LogSumExp(s), LogSumExp(s, axis=0)),
            similarity="cosine",
            implementation=implementation,
            block_size=256,
        )[0].sum()

    shape = jax.ShapeDtypeStruct((8192, 16), jnp.float32)
    compiled = {
        implementation: jax.jit(jax.grad(partial(loss, implementation=implementation), (0, 1))).lower(shape, shape).compile().memory_analysis()
        for implementation in ("dense", "blockwise")
    }
    assert compiled["dense"].temp_size_in_bytes > 4 * 8192**2
    assert compiled["blockwise"].temp_size_in_bytes < 4 * 8192**2 / 40


def test_more_than_two_to_the_31_pairs_are_accepted():
    shape = jax.ShapeDtypeStruct((100_000, 8), jnp.float32)
    result = jax.eval_shape(lambda q, k: pairwise.reduce(q, k, lambda s, *_: Max(s)), shape, shape)
    assert result[0].shape == result[1].shape == (100_000,)


def test_sharded_inputs_under_plain_jit_give_the_same_numbers():
    values = float32(problem(16, 8))
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    split = values | {name: jax.device_put(values[name], jax.NamedSharding(mesh, jax.P("x"))) for name in ("queries", "keys")}
    for implementation in ("dense", "blockwise"):
        compute = jax.jit(lambda values, implementation=implementation: found(values, "cosine", implementation))
        assert largest_error(compute(split), jax.tree.map(np.asarray, compute(values))) < 1e-5


@partial(jax.jit, static_argnames="block_size")
def reduce_kept(queries, keys, keep, block_size):
    return pairwise.reduce(
        queries,
        keys,
        lambda s, row, column, _: (LogSumExp(s * 3, where=column), Sum(s, where=column), Max(s, where=column)),
        columns=keep,
        implementation="blockwise",
        block_size=block_size,
    )


@given(seed=st.integers(0, 10**6), block_size=st.sampled_from([2, 3, 11]))
def test_masking_equals_deletion_and_order_does_not_matter(seed, block_size):
    draw = np.random.default_rng(seed)
    queries, keys = draw.normal(size=(6, 3)).astype(np.float32), draw.normal(size=(11, 3)).astype(np.float32)
    keep = draw.random(11) < 0.6
    keep[0] = True
    lse, total, (highest, place) = reduce_kept(queries, keys, keep, block_size)
    left = queries.astype(np.float64) @ keys[keep].T
    np.testing.assert_allclose(lse, np.log(np.exp(3 * left).sum(1)), atol=5e-6)
    np.testing.assert_allclose(total, left.sum(1), atol=5e-6)
    np.testing.assert_allclose(highest, left.max(1), atol=5e-6)
    np.testing.assert_array_equal(place, np.flatnonzero(keep)[left.argmax(1)])
    order = draw.permutation(11)
    moved_lse, moved_total, (_, moved_place) = reduce_kept(queries, keys[order], keep[order], block_size)
    np.testing.assert_allclose(lse, moved_lse, atol=2e-6)
    np.testing.assert_allclose(total, moved_total, atol=5e-6)
    np.testing.assert_array_equal(order[moved_place], place)


def _plain(scores, row, column, params):
    return Sum(scores)


X = jnp.ones((4, 3))


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, r"queries must have shape \[B, D\], got \[3\]", lambda: pairwise.reduce(X[0], X, _plain)),
        (ValueError, r"keys must have shape \[N, D\] with D = 3 as in queries, got \[4, 2\]", lambda: pairwise.reduce(X, X[:, :2], _plain)),
        (TypeError, "queries must have dtype float, got int32", lambda: pairwise.reduce(jnp.ones((2, 2), jnp.int32), X, _plain)),
        (TypeError, "queries must be an array, got 'a'", lambda: pairwise.reduce("a", X, _plain)),
        (TypeError, "terms must be a function", lambda: pairwise.reduce(X, X, 3)),
        (TypeError, "terms must return a tree of LogSumExp, Sum and Max, got", lambda: pairwise.reduce(X, X, lambda s, *_: s)),
        (ValueError, "Sum.axis must be 1 .* got 2", lambda: pairwise.reduce(X, X, lambda s, *_: Sum(s, axis=2))),
        (ValueError, r"Sum.value must broadcast to the block of scores \[4, 4\]", lambda: pairwise.reduce(X, X, lambda s, *_: Sum(s[:2]))),
        (ValueError, "similarity must be one of .* got 'cosin'; did you mean 'cosine'", lambda: pairwise.reduce(X, X, _plain, similarity="cosin")),
        (ValueError, "implementation must be one of", lambda: pairwise.reduce(X, X, _plain, implementation="fast")),
        (ValueError, "collective must be one of", lambda: pairwise.reduce(X, X, _plain, collective="tree")),
        (ValueError, "axis_name='data' is not mapped here", lambda: pairwise.reduce(X, X, _plain, axis_name="data")),
        (TypeError, "axis_name must be a string", lambda: pairwise.reduce(X, X, _plain, axis_name=3)),
        (ValueError, "block_size must be at least 1, got 0", lambda: pairwise.reduce(X, X, _plain, block_size=0)),
        (TypeError, "block_size must be an integer, got 1.5", lambda: pairwise.reduce(X, X, _plain, block_size=1.5)),
        (ValueError, "every leaf of rows must have one entry for each of the 4 queries", lambda: pairwise.reduce(X, X, _plain, rows=X[:3])),
        (ValueError, "every leaf of columns must have one entry for each of the 4 keys", lambda: pairwise.reduce(X, X, _plain, columns=jnp.ones(()))),
        (ValueError, "columns must be None where keys is None", lambda: pairwise.reduce(X, None, _plain, columns=X)),
        (ValueError, "batch must be at least 0", lambda: pairwise.index(-1)),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.errors
def test_explicit_mesh_axes_raise_one_clear_line():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,), devices=jax.devices()[:4])
    split = jax.device_put(X, jax.NamedSharding(mesh, jax.P("x")))
    with pytest.raises(ValueError, match="queries must not be sharded over explicit mesh axes"):
        pairwise.reduce(split, X, _plain)
