"""Configurations: plain values outside of compiled code, traced floats inside."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Annotated, Literal

import jax
import pytest
import tyro

from cljax import train


@train.config
class Optimiser:
    rate: float = 1e-3
    warm_up: int = 10


@train.config
class Config:
    """Settings."""

    temperature: float = 0.1  # divides the similarity
    cap: float | None = None
    hardest: int | None = None
    widths: tuple[int, ...] = (8, 4)
    kind: Literal["a", "b"] = "a"
    bank: bool = False
    margin: Annotated[float, "in radians"] = 0.5
    optimiser: Optimiser = Optimiser()
    decay: float = dataclasses.field(default=0.9, metadata={"static": True})


def test_floats_and_nested_configs_are_data_and_all_else_is_static():
    config = Config(cap=2.0)
    assert jax.tree.leaves(config) == [0.1, 2.0, 0.5, 1e-3]
    assert jax.tree.leaves(Config()) == [0.1, 0.5, 1e-3]  # a float that is None is no leaf
    assert jax.tree.structure(config) != jax.tree.structure(Config(cap=2.0, decay=0.8))
    assert jax.tree.structure(config) != jax.tree.structure(Config(cap=2.0, widths=(8,)))
    assert jax.tree.structure(config) == jax.tree.structure(Config(0.3, 1.0, optimiser=Optimiser(rate=1.0)))


def test_two_that_differ_in_a_float_share_a_program():
    traces = []

    @jax.jit
    def scaled(config):
        traces.append(type(config.temperature))
        return config.temperature * config.optimiser.rate * len(config.widths) * config.decay

    values = [float(scaled(Config(t))) for t in (0.1, 2, 3)]
    assert values == pytest.approx([0.00018, 0.0036, 0.0054]) and len(traces) == 1
    assert float(jax.grad(scaled)(Config()).temperature) == pytest.approx(0.0018)


def test_outside_of_compiled_code_it_is_a_plain_frozen_dataclass():
    config = Config(temperature=1)
    assert type(config.temperature) is float and config.temperature == 1.0
    assert config == Config(1.0) and hash(config) == hash(Config(1.0)) and config != Config(2.0)
    assert dataclasses.replace(config, hardest=3).hardest == 3
    assert pickle.loads(pickle.dumps(config)) == config
    assert repr(Optimiser()) == "Optimiser(rate=0.001, warm_up=10)"
    assert dataclasses.asdict(config)["optimiser"] == {"rate": 0.001, "warm_up": 10}
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.temperature = 2.0


def test_a_command_line_overrides_an_arm():
    arm = Config(temperature=0.3, bank=True)
    changed = tyro.cli(
        Config, default=arm, args=["--temperature", "1", "--optimiser.rate", "0.5", "--widths", "3", "--cap", "4", "--hardest", "None"]
    )
    assert changed == Config(1.0, 4.0, None, (3,), bank=True, optimiser=Optimiser(0.5))


def test_a_config_may_check_itself_and_be_inherited():
    @train.config
    class Checked:
        rate: float

        def __post_init__(self):
            if self.rate <= 0:
                raise ValueError("rate")

    @train.config
    class More(Checked):
        cap: float = 1

    assert jax.tree.leaves(More(2)) == [2.0, 1.0]
    with pytest.raises(ValueError, match="rate"):
        More(0)


@pytest.mark.errors
def test_what_cannot_be_a_config_is_named():
    with pytest.raises(TypeError, match="Config.widths must be hashable .*, got list"):
        Config(widths=[1, 2])
    with pytest.raises(TypeError, match="an annotation of Lost cannot be resolved: name 'Nowhere'"):

        @train.config
        class Lost:
            place: Nowhere = None  # noqa: F821 - on purpose

    with pytest.raises(TypeError, match="decorates a class, got int"):
        train.config(3)
