"""Metrics during training: probes in a compiled hook after every so many steps, the collapse watch in the step itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import losses, metrics, train

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 120)
X = (3 * np.eye(3, 8)[LABELS] + RNG.normal(size=(120, 8))).astype(np.float32)
TRACES = []


def encode(params, x):
    return x @ params


def objective(params, batch):
    a = encode(params, batch["x"])
    return losses.mean(losses.sup_con(a, batch["label"], temperature=0.5, axis_name="data"), axis_name="data"), a


def step(state, batch, key):
    (value, embeddings), grads = jax.value_and_grad(objective, has_aux=True)(state["params"], batch)
    params, opt = train.descend(optax.sgd(0.3), grads, state["params"], state["opt"], axis_name="data")
    return {"params": params, "opt": opt}, {"loss": value} | metrics.collapse_watch(embeddings, axis_name="data")


@jax.jit
def scores(params, test, labels, reference, reference_labels):
    TRACES.append(1)
    known, asked = encode(params, reference), encode(params, test)
    return {
        "knn": metrics.knn_accuracy(asked, labels, known, reference_labels, k=5),
        "ridge": metrics.ridge_probe(asked, labels, known, reference_labels, num_classes=3),
    }


def probe(data, key, state):
    return state, scores(state["params"], *data)


def test_probes_run_after_every_so_many_steps_and_compile_once():
    reference, test = slice(0, 80), slice(80, 120)
    hook = partial(probe, (X[test], LABELS[test], X[reference], LABELS[reference]))
    params = jnp.asarray(0.01 * RNG.normal(size=(8, 4)), jnp.float32)
    state = {"params": params, "opt": optax.sgd(0.3).init(params)}
    data = train.draws({"x": X[reference], "label": LABELS[reference]}, 16)
    state, history = train.fit(jax.random.key(0), state, step, data, steps=12, after=((5, hook),), progress=False)
    assert history["knn"].shape == history["ridge"].shape == (3,)  # after 5, 10 and the last
    assert len(TRACES) == 1
    for name, value in scores(state["params"], X[test], LABELS[test], X[reference], LABELS[reference]).items():
        assert history[name][-1] == value and 0.5 < value <= 1
    for name in ("std", "mean_cosine", "effective_rank"):
        assert history[name].shape == (12,) and np.isfinite(history[name]).all()
    assert (history["effective_rank"] >= 1).all() and (history["effective_rank"] <= 4.001).all()
