"""A tiny experiment that the tests of studies share."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from cljax.study import plain

SCRIPT = '''"""A tiny study: noise around a mean.

    python tiny.py
"""

import os
import signal
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from cljax import study, train


@train.config
class Optimiser:
    learning_rate: float = 0.1


@train.config
class Config:
    mean: float = 1.0
    noisy: bool = True
    size: int = 8
    hardest: int | None = None
    widths: tuple[int, ...] = (4, 2)
    optimiser: Optimiser = Optimiser()
    kind: str = "plain"
    log: str = ""


ARMS = {"plain": Config(), "better": Config(mean=2.0), "quiet": Config(noisy=False)}
FULL = Config(size=64)


def draw(key, arrays, t):
    return {"x": arrays["x"] * t}


def step(config, state, batch, key):
    gap = jax.lax.pmean(jnp.mean(batch["x"]), "data") - state["w"]
    return {"w": state["w"] + config.learning_rate * gap}, {"loss": gap**2}


def trained(config, key, fit):
    x = jax.random.uniform(key) + jnp.arange(8.0) * config.mean
    state, history = fit(key, {"w": jnp.zeros(())}, partial(step, config.optimiser), train.draws({"x": x}, draw), steps=4)
    return {"score": state["w"], "loss over steps": history["loss"]}


def run(config, key, fit=train.fit):
    if config.log:
        with open(config.log, "a") as log:
            log.write(f"{config.mean} {os.getpid()}\\n")
    if config.kind == "fails" and config.mean == 2:
        raise RuntimeError("this arm fails")
    if config.kind == "dies" and not Path(config.log + ".died").exists():
        Path(config.log + ".died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if config.kind in ("trained", "dies"):
        return trained(config, key, fit)
    if config.kind == "slow":
        time.sleep(60)
    x = jax.random.normal(key, (config.size,)) * config.noisy + config.mean
    return {"score": x.mean() * 10 * config.optimiser.learning_rate, "score over steps": jnp.cumsum(x)}


def bad(config, key):
    return {"score": jnp.zeros((2, 2))}


CLAIMS = [
    study.Claim("better is better", study.gain("score", "better", than="plain"), expected=1.5),
    study.Claim("plain beats better", study.gain("score", "plain", than="better")),
    study.Claim("quiet is about one", lambda arms: arms["quiet"]["score"], at_least=0.9, at_most=1.1),
]

if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, vmap=True, seeds=2)
'''


@pytest.fixture(scope="session")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiments") / "tiny.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="session")
def tiny(script):
    return plain.load_module(str(script.resolve()), "not importable by name")


@pytest.fixture(scope="module", autouse=True)
def _programs_kept_apart(tmp_path_factory):
    """The compilation cache that studies turn on stays out of the home folder and of other tests; the workers of a pool share it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.getbasetemp() / "programs")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        jax.config.update("jax_compilation_cache_dir", folder)
        yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
