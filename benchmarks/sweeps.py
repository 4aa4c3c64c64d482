"""Sweeps of arms and seeds: one process a core, one program for all seeds, a second start, and the programs that are kept.

    python benchmarks/sweeps.py

(a) 16 cells of a small perceptron, and 4 of a small convolutional net, through `study.sweep` in order and one a core, against a plain loop over the
cells that shares its compiled program; on an accelerator, the seeds as one program (`jax.vmap`) against that loop. (b) A finished sweep started
again. (c) The time that a process spends compiling where it finds its programs in JAX's persistent cache, against one that does not. Data are random
numbers, as what is learned does not matter here. All is timed once, with compilation, as in a sweep.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import measure
import optax
from jax import lax

from cljax import encoders, losses, train

ROWS, BATCH = 1200, 128
OPTIMISER = optax.adam(1e-3)
HERE = "import os, runpy, sys; sys.path.insert(0, os.path.dirname(sys.argv[1]))"  # what a process of its own begins with


@train.config
class Config:
    temperature: float = 0.3
    convolutional: bool = False
    steps: int = 400


def network(config):
    return encoders.ConvNet((16, 32), 32) if config.convolutional else encoders.MLP((128, 64), 32)


def begin(config, key):
    k_images, k_init = jax.random.split(key)
    images = jax.random.normal(k_images, (ROWS, 16, 16) if config.convolutional else (ROWS, 8, 8))
    params = network(config).init(k_init, images[:1])
    return images, {"params": params, "opt": OPTIMISER.init(params)}


def step(config, state, batch, key):
    def objective(params):
        noise = 0.1 * jax.random.normal(key, (2, *batch["x"].shape))
        a, b = (network(config).apply(params, batch["x"] + part) for part in noise)
        return losses.mean(losses.nt_xent(a, b, temperature=config.temperature, axis_name="data"), axis_name="data")

    value, grads = jax.value_and_grad(objective)(state["params"])
    params, opt = train.descend(OPTIMISER, grads, state["params"], state["opt"], axis_name="data")
    return {"params": params, "opt": opt}, {"loss": value}


def run(config, key, fit=train.fit):
    k_begin, k_fit = jax.random.split(key)
    images, state = begin(config, k_begin)
    _, history = fit(k_fit, state, partial(step, config), train.draws({"x": images}, BATCH), steps=config.steps)
    return {"loss": history["loss"][-1]}


def by_hand(convolutional, temperature, state, images, key, t):
    """One step as a person would write it: the axis "data" is bound by a vmap of size one."""
    config = Config(temperature, convolutional)
    k_draw, k_step = jax.random.split(jax.random.fold_in(key, t))
    batch = {"x": images[jax.random.randint(k_draw, (1, BATCH), 0, ROWS)]}
    new, _ = jax.vmap(partial(step, config), in_axes=(None, 0, None), axis_name="data")(state, batch, k_step)
    return jax.tree.map(lambda leaf: leaf[0], new)


def steps_by_hand(convolutional, temperature, state, images, key, steps):
    return lax.fori_loop(0, steps, lambda t, state: by_hand(convolutional, temperature, state, images, key, t), state)


def loop(arms, seeds):
    """A plain loop over arms and seeds: one compiled loop of steps for all, or with convolutions on a processor one compiled step."""
    convolutional = next(iter(arms.values())).convolutional
    one_at_a_time = convolutional and jax.default_backend() == "cpu"
    compiled = jax.jit(partial(by_hand if one_at_a_time else steps_by_hand, convolutional))
    for config in arms.values():
        for seed in range(seeds):
            k_begin, k_fit = jax.random.split(jax.random.key(seed))
            images, state = begin(config, k_begin)
            for t in range(config.steps) if one_at_a_time else (config.steps,):
                state = compiled(config.temperature, state, images, k_fit, t)
            jax.block_until_ready(state)


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def against_the_loop(name, arms, seeds):
    plain = seconds(lambda: loop(arms, seeds))
    cells = f"{name}, {len(arms)} arms x {seeds} seeds: time / a plain loop's"
    if jax.default_backend() != "cpu":
        populations = seconds(lambda: [jax.vmap(partial(run, config))(jax.vmap(jax.random.key)(jnp.arange(seeds))) for config in arms.values()])
        ratio = populations / plain
        measure.row(f"{cells}, seeds as one program", f"1/{1 / ratio:.1f} ({populations:.1f} s)", "<= 1/6", ratio <= 1 / 6)
        return
    from cljax import study

    in_order = seconds(lambda: study.sweep(run, arms, seeds=seeds))
    measure.row(f"{cells}, in order", f"{in_order / plain:.2f} ({in_order:.1f} s)")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as executor:
        spread = seconds(lambda: study.sweep(run, arms, seeds=seeds, executor=executor))
    measure.row(f"{cells}, one a core", f"{spread / plain:.2f} ({spread:.1f} s)", "<= 1", spread / plain <= 1)


def second_start():
    with tempfile.TemporaryDirectory() as out:
        sweep(out)
        again = seconds(lambda: subprocess.run([sys.executable, __file__, "--again", out], check=True))
    measure.row("a finished sweep of 2 x 3 started again, with the start of Python", f"{again:.1f} s", "< 5 s", again < 5)


def sweep(out):
    from cljax import study

    study.sweep(run, {str(temperature): Config(temperature) for temperature in (0.1, 1.0)}, seeds=3, out=out)


def kept_programs():
    code = f"{HERE}; print(runpy.run_path(sys.argv[1])['compile_seconds']())"
    with tempfile.TemporaryDirectory() as cache:
        kept = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        command = [sys.executable, "-c", code, __file__]
        cold, warm = (float(subprocess.run(command, env=os.environ | kept, capture_output=True, text=True, check=True).stdout) for _ in range(2))
    measure.row(
        "compiling from the persistent cache / without it", f"{warm / cold:.2f} ({cold:.1f} s and {warm:.1f} s)", "<= 0.1", warm / cold <= 0.1
    )


def compile_seconds():
    """The time that this process spends in XLA's compiler, or in reading what it made before, for one cell."""
    spent = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: spent.append(seconds) if "backend_compile" in event else None)
    run(Config(steps=1), jax.random.key(0), partial(train.fit, progress=False))
    return sum(spent)


def main():
    if sys.argv[1:2] == ["--again"]:
        return sweep(sys.argv[2])
    measure.begin()
    temperatures = (0.1, 1.0)
    against_the_loop("perceptron", {str(t): Config(t) for t in temperatures}, 8)
    against_the_loop("convolutional net", {str(t): Config(t, convolutional=True) for t in temperatures}, 2)
    if jax.default_backend() == "cpu":
        second_start()
        kept_programs()


if __name__ == "__main__":
    main()
