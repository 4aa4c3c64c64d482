"""A small model with strong opinions, and prompts of unequal lengths."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
