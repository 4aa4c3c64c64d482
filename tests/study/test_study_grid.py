"""Grids: fields by name, values by type, names of arms."""

import dataclasses
from typing import Any, Literal

import pytest

from cljax.study import grid


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Config:
    temperature: float = 0.3
    softmax: bool = True
    hardest: int | None = 4
    widths: tuple[int, ...] = (4, 2)
    kind: Literal["a", "b"] = "a"
    pool: Literal["mean", "first"] | None = None
    name: str = "digits"
    inner: Inner = Inner()
    function: Any = max


def run(config, key):
    return {"score": 0.0}


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("temperature", "0.5", 0.5),
        ("temperature", "-1e-3", -0.001),
        ("temperature", "2", 2.0),
        ("softmax", "False", False),
        ("softmax", "true", True),
        ("hardest", "None", None),
        ("hardest", "12", 12),
        ("widths", "64:32:8", (64, 32, 8)),
        ("widths", "64", (64,)),
        ("kind", "b", "b"),
        ("pool", "first", "first"),
        ("pool", "None", None),
        ("name", "tfds:cifar10", "tfds:cifar10"),
        ("inner.rate", "0.5", 0.5),
    ],
)
def test_a_text_is_read_by_the_fields_type(name, text, value):
    config = grid.with_field(Config(), name, text)
    found = grid.fields(config)[name][1]
    assert found == value and type(found) is type(value)
    assert sum(mine != other for (_, mine), (_, other) in zip(grid.fields(config).values(), grid.fields(Config()).values(), strict=True)) <= 2


@pytest.mark.errors
@pytest.mark.parametrize(
    "name, value",
    [
        ("temperature", "abc"),
        ("temperature", (1.0, 2.0)),
        ("temperature", True),
        ("hardest", "2.5"),
        ("hardest", 2.5),
        ("widths", "a:b"),
        ("kind", "c"),
        ("softmax", "0"),
        ("inner.rate", "x"),
    ],
)
def test_a_value_that_the_field_does_not_take_names_the_field(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*, got"):
        grid.with_field(Config(), name, value)


def test_a_wrong_value_is_told_what_there_is():
    with pytest.raises(ValueError, match=r"^pool must be 'mean' \| 'first' \| None, got 'firts'; did you mean 'first'\?"):
        grid.with_field(Config(), "pool", "firts")
    kinds = {name: grid.kind_name(kind) for name, (kind, _) in grid.fields(Config()).items()}
    wanted = {"temperature": "float", "hardest": "int | None", "widths": "tuple[int, ...]", "kind": "'a' | 'b'", "pool": "'mean' | 'first' | None"}
    assert kinds | wanted == kinds


def test_python_values_keep_what_has_no_text():
    assert grid.with_field(Config(), "function", min).function is min
    assert grid.with_field(Config(), "inner", Inner(0.7)).inner.rate == 0.7
    assert grid.with_field(Config(), "widths", (1, 2, 3)).widths == (1, 2, 3)
    assert grid.with_field(Config(), "hardest", None).hardest is None


def test_cells_are_the_product_of_arms_values_and_seeds():
    settings = grid.parse_sets(["temperature=0.10,1", "widths=8:4", "inner.rate=0.5"], [Config()])
    todo = grid.expand(run, {"a": Config(), "b": Config(softmax=False)}, settings, 2)
    assert [cell.arm for cell in todo[::2]] == [f"{arm}[temperature={t},widths=8:4,inner.rate=0.5]" for t in ("0.10", "1") for arm in "ab"]
    assert [cell.seed for cell in todo[:4]] == [0, 1, 0, 1]
    assert (
        todo[0].point == {"temperature": 0.1, "widths": (8, 4), "inner.rate": 0.5}
        and todo[0].config.inner.rate == 0.5
        and todo[-1].config.temperature == 1
    )
    assert len({cell.key for cell in todo}) == 8


def test_arms_without_a_grid_keep_their_names_and_equal_cells_share_a_key():
    todo = grid.expand(run, {"a": Config(), "b": Config(temperature=0.30)}, {}, 1)
    assert [cell.arm for cell in todo] == ["a", "b"] and todo[0].key == todo[1].key


@pytest.mark.errors
@pytest.mark.parametrize(
    "settings, words",
    [
        (["temprature=1"], "did you mean 'temperature'"),
        (["inner.rte=1"], "did you mean 'inner.rate'"),
        (["temperature"], "field=v1,v2"),
        (["temperature="], "field=v1,v2"),
    ],
)
def test_a_wrong_setting_names_the_nearest_field(settings, words):
    with pytest.raises(ValueError, match=words):
        grid.parse_sets(settings, [Config()])
