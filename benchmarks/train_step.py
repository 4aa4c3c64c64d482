"""Time of a training step in `train.fit`, as a ratio to the same step called by hand.

    python benchmarks/train_step.py

(a) A small MLP, against a bare compiled loop over the same step and the same batches; (b) a small convolutional net, against bare jitted calls (its
compiled loop is what XLA:CPU makes slow). The least of several runs that take turns in one process; compilation is not counted.
(c) What it costs to save every second, or at the end, against not to save at all: an MLP with 8 MB of parameters and optimiser.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import measure
import numpy as np
import optax
from jax import lax

from cljax import train

BATCH = 128
OPTIMISER = optax.adam(1e-3)


def mlp(params, x):
    return jnp.tanh(x.reshape(len(x), -1) @ params["a"]) @ params["b"]


def conv_net(params, x):
    for w in (params["a"], params["b"]):
        x = jax.nn.relu(lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))
    return x.mean((1, 2))


def step(network, state, batch, key):
    def objective(params):
        a, b = (network(params, batch["x"] + 0.1 * jax.random.normal(k, batch["x"].shape)) for k in jax.random.split(key))
        logits = a @ b.T
        return lax.pmean(optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(len(logits))).mean(), "data")

    value, grads = jax.value_and_grad(objective)(state["params"])
    params, opt = train.descend(OPTIMISER, grads, state["params"], state["opt"], axis_name="data")
    return {"params": params, "opt": opt}, {"loss": value}


def draw(key, arrays, t):
    return {"x": arrays["x"][jax.random.randint(key, (BATCH,), 0, len(arrays["x"]))]}


def by_hand(network, state, x, key, t):
    """One step as a person would write it: the axis "data" is bound by a vmap of size one."""
    k_draw, k_step = jax.random.split(jax.random.fold_in(key, t))
    batch = jax.tree.map(lambda leaf: leaf[None], draw(k_draw, {"x": x}, t))
    mapped = jax.vmap(partial(step, network), in_axes=(None, 0, None), axis_name="data")
    return jax.tree.map(lambda leaf: leaf[0], mapped(state, batch, k_step))


def loop(network, state, x, key, steps):
    return lax.fori_loop(0, steps, lambda t, state: by_hand(network, state, x, key, t)[0], state)


def compare(name, network, params, x, steps, repeats, looped_steps, bound):
    key, state = jax.random.key(0), {"params": params, "opt": OPTIMISER.init(params)}
    data = train.draws({"x": x}, draw)
    compiled_loop, compiled_step = jax.jit(partial(loop, network)), jax.jit(partial(by_hand, network), donate_argnums=0)

    def calls():
        current = jax.tree.map(jnp.copy, state)
        for t in range(steps):
            current, metrics = compiled_step(current, data.arrays["x"], key, t)
        return current

    runs = {
        "fit": lambda: train.fit(key, state, partial(step, network), data, steps=steps, progress=False),
        "bare jitted calls": calls,
        "a bare compiled loop": lambda: compiled_loop(state, data.arrays["x"], key, looped_steps),
    }
    times = measure.seconds(runs, repeats)
    each = {kind: times[kind] / (looped_steps if kind.endswith("loop") else steps) for kind in runs}
    for kind in list(runs)[1:]:
        ratio = each["fit"] / each[kind]
        target = ("<= 1.02", ratio <= 1.02) if kind == bound else ()
        measure.row(f"a step of {name} in fit: time / in {kind}", f"{ratio:.2f} ({1e3 * each['fit']:.2f} ms)", *target)


def saving(params, x, seconds_a_run, repeats):
    """Prints the time of a step of runs of some seconds, by how often they save; what is saved at the end is part of it."""
    state, data, bound = {"params": params, "opt": OPTIMISER.init(params)}, train.draws({"x": x}, draw), partial(step, mlp)

    def run(steps, **options):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            options = {name: Path(folder) if name == "folder" else value for name, value in options.items()}
            jax.block_until_ready(train.fit(jax.random.key(0), state, bound, data, steps=steps, progress=False, **options)[0])
        return 1e3 * (time.perf_counter() - start) / steps

    run(50)
    steps = int(1e3 * seconds_a_run / run(200))
    ways = {"never": {}, "at the end": {"folder": 1, "save_seconds": 60}, "every second": {"folder": 1, "save_seconds": 1}}
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, options in ways.items():
            times[name].append(run(steps, **options))
    for name in ("at the end", "every second"):
        ratio = min(times[name]) / min(times["never"])
        measure.row(f"saving a state of {_megabytes(state):.0f} MB {name}, of {seconds_a_run} s: time / without saving", f"{ratio:.3f}")


def _megabytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) / 1e6


if __name__ == "__main__":
    measure.begin()
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32)

    compare("a perceptron", mlp, {"a": normal(64, 128), "b": normal(128, 32)}, normal(1200, 8, 8, 1), 500, 8, 500, "a bare compiled loop")
    compare(
        "a convolutional net",
        conv_net,
        {"a": normal(3, 3, 1, 16), "b": normal(3, 3, 16, 32)},
        normal(1200, 16, 16, 1),
        100,
        8,
        5,
        "bare jitted calls",
    )
    saving({"a": normal(64, 4096), "b": normal(4096, 128)}, normal(1200, 8, 8, 1), 10, 3)
