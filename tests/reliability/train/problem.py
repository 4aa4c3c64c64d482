"""A run with all that a step can depend on, for the tests of this folder; as a script, one that is killed where its arguments say.

python problem.py FOLDER SEED      runs the stages in FOLDER; SEED decides when it is killed: in the middle of a save if it is odd
python problem.py FOLDER NUMBER PROCESSES PORT STEPS [PAUSE]      one of several processes that run a stage; PAUSE are seconds after each step, or
                                                                  "fails" where the first one is to raise
"""

import functools
import os
import random
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import encoders, losses, memory, train

ROWS = np.random.default_rng(0).normal(size=(48, 6)).astype(np.float32)
MODEL = encoders.MLP((16,), 8, batch_norm=True, axis_name="data")
EVALUATED = encoders.MLP((16,), 8, batch_norm=True)
QUEUE, EMA, ADAM = memory.queue(40, 8), memory.ema(0.9), optax.adam(1e-2)
STEPS, STAGES = 60, 3


@jax.jit
def init():
    variables = MODEL.init(jax.random.key(1), ROWS[:2])
    params = variables["params"]
    memories = {"queue": QUEUE.init(jax.random.key(2)), "ema": EMA.init(params), "table": jnp.zeros((len(ROWS), 8))}
    return {"params": params, "stats": variables["batch_stats"], "opt": ADAM.init(params), **memories}


def view(key, batch):
    noise = jax.vmap(lambda index: jax.random.normal(jax.random.fold_in(key, index), (6,)))(batch["index"])
    return batch["x"] + 0.3 * noise


def encode(params, stats, inputs):
    embeddings, updates = MODEL.apply({"params": params, "batch_stats": stats}, inputs, train=True, mutable=["batch_stats"])
    return embeddings, updates["batch_stats"]


def step(temperature, state, batch, key):
    """Momentum contrast with the hardest negatives of the batch, of a queue and of a table that a hook refreshes."""
    k_query, k_key = jax.random.split(key)
    keys, _ = encode(state["ema"].params, state["stats"], view(k_key, batch))
    negatives = jnp.concatenate([state["queue"].keys, state["table"]])
    seen = jnp.concatenate([jnp.full(len(state["queue"].keys), -1), jnp.arange(len(ROWS))])  # a row of the table is no negative of itself

    def objective(params):
        queries, stats = encode(params, state["stats"], view(k_query, batch))
        sides = dict(negatives=negatives, ids=batch["index"], negative_ids=seen, axis_name="data")
        return losses.mean(losses.hard_contrastive(queries, keys, k=6, temperature=temperature, **sides), axis_name="data"), stats

    (value, stats), grads = jax.value_and_grad(objective, has_aux=True)(state["params"])
    params, opt = train.descend(ADAM, grads, state["params"], state["opt"], axis_name="data")
    ema, queue = EMA.update(state["ema"], params), QUEUE.update(state["queue"], keys, axis_name="data")
    return {**state, "params": params, "stats": stats, "opt": opt, "ema": ema, "queue": queue}, {"loss": value, "draw": jax.random.uniform(key)}


def light(state, batch, key):
    """A step that compiles in a moment."""
    return {"sum": state["sum"] + jnp.mean(batch["x"]) + jax.random.normal(key)}, {"loss": state["sum"]}


@jax.jit
def table(params, stats):
    return EVALUATED.apply({"params": params, "batch_stats": stats}, ROWS)


def refresh(key, state):
    fresh = table(state["ema"].params, state["stats"])
    return {**state, "table": fresh + 0.01 * jax.random.normal(key, fresh.shape)}, {"norm": jnp.mean(jnp.linalg.norm(fresh, axis=1))}


def fit(state=None, folder=None, *, temperature=0.3, seed=0, steps=STEPS, chunk=5, **options):
    data = options.pop("data", train.draws({"x": ROWS}, 16))
    bound = functools.partial(step, temperature)
    state = init() if state is None else state
    options = {"after": ((20, refresh),), "progress": False, **options}
    return train.fit(jax.random.key(seed), state, bound, data, steps=steps, folder=folder, chunk=chunk, **options)


def run(folder=None, **options):
    """Several fits, each of which begins where the one before has ended: the last state and all histories."""
    state, histories = init(), []
    for stage in range(STAGES):
        state, history = fit(state, folder, name=f"stage-{stage}", **options)
        histories.append(history)
    return state, histories


def kill(seed):
    """Arranges a SIGKILL: at some moment after the first step, or in the middle of some save, between any two things that it does or inside orbax."""
    from cljax.train import checkpoint

    chance, started, saves = random.Random(seed), threading.Event(), [0]

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def later(seconds):
        threading.Timer(seconds, die).start()

    if seed % 2 == 0:
        delay = chance.uniform(0, 1.5)
        return lambda number, row: started.is_set() or started.set() or later(delay)
    place, which, delay = chance.choice(["inside", "_digests", "_publish", "_complete"]), chance.randint(2, 5), chance.uniform(0, 0.1)
    point = "_orbax" if place == "inside" else place
    original = getattr(checkpoint, point)

    def faulty(*arguments):
        saves[0] += place != "_digests" or arguments[0].name.startswith(".")
        if saves[0] == which:
            later(delay) if place == "inside" else die()
        return original(*arguments)

    setattr(checkpoint, point, faulty)
    return None


def as_one(folder, number, processes, port, steps, pause=0):
    def log(step, row):
        print(step, flush=True)
        if pause == "fails" and step == 40:
            raise OSError("what befalls one host alone")
        time.sleep(0 if pause == "fails" else float(pause))

    jax.config.update("jax_num_cpu_devices", 1)
    train.join(f"localhost:{port}", int(processes), int(number))
    fit(folder=folder, steps=int(steps), log=log, save_seconds=1)


if __name__ == "__main__" and len(sys.argv) > 3:
    as_one(*sys.argv[1:])
elif __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    run(sys.argv[1], log=kill(int(sys.argv[2])), save_seconds=0)
