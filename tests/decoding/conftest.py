"""A small model with strong opinions, prompts of unequal lengths, and when two generations are the same."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from cljax import encoders

PROMPT = np.random.default_rng(0).integers(1, 13, (4, 6))
LENGTHS = np.array([6, 3, 1, 4])


@pytest.fixture(scope="session")
def small():
    """The model, its parameters, `prompt` and `mask` padded behind, the same padded in `front`, and `states(texts)` without a cache."""
    model = encoders.Decoder(13, 16, layers=1, heads=2, hidden=12, positions="rotary")
    shapes = jax.eval_shape(model.init, jax.random.key(0), PROMPT)
    rng = np.random.default_rng(1)
    sizes = {"tokens": 0.7, "kernel": 0.5, "bias": 0.1}
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.float32(rng.normal(size=leaf.shape) * sizes[path[-1].key] if path[-1].key in sizes else np.ones(leaf.shape)), shapes
    )
    mask = np.arange(6) < LENGTHS[:, None]
    prompt = np.where(mask, PROMPT, 0)
    program = jax.jit(lambda ids, mask: model.apply(params, ids, mask))

    def states(texts):
        """Of each text the states of its tokens and the logits behind its last one, float64."""
        ids, there = np.zeros((4, 20), int), np.zeros((4, 20), bool)
        for row, text in enumerate(texts):
            ids[row, : len(text)], there[row, : len(text)] = text, True
        hidden, logits = (np.asarray(part, np.float64) for part in program(ids, there))
        return [hidden[row, : len(text)] for row, text in enumerate(texts)], [logits[row, len(text) - 1] for row, text in enumerate(texts)]

    front = tuple(np.stack([np.roll(row, 6 - length) for row, length in zip(part, LENGTHS, strict=True)]) for part in (prompt, mask))
    texts = [list(row[:length]) for row, length in zip(PROMPT, LENGTHS, strict=True)]
    counted = []

    def apply(params, ids, mask, cache):
        counted.append(jnp.shape(ids))
        return model.apply(params, ids, mask, cache)

    return SimpleNamespace(
        model=model, params=params, prompt=prompt, mask=mask, front=front, states=states, texts=texts, apply=apply, counted=counted
    )


@pytest.fixture(scope="session")
def equal():
    """Raises where two generations differ."""

    def equal(a, b):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_allclose(a.log_probs, b.log_probs, atol=1e-5)

    return equal


@pytest.fixture(scope="session")
def same_everywhere(equal):
    """Raises where `local(params, *arguments)`, whose arguments have the four rows in front, is another under jit, vmap or shard_map."""

    def same(local, params, *arguments):
        expected = local(params, *arguments)
        equal(jax.jit(local)(params, *arguments), expected)
        one = jax.vmap(lambda *row: jax.tree.map(lambda leaf: leaf[0], local(params, *(part[None] for part in row))))
        equal(jax.jit(one)(*arguments), expected)
        mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
        for check_vma in (True, False):
            specs = dict(in_specs=(jax.P(), *[jax.P("data")] * len(arguments)), out_specs=jax.P("data"), check_vma=check_vma)
            equal(jax.jit(jax.shard_map(local, mesh=mesh, **specs))(params, *arguments), expected)

    return same
