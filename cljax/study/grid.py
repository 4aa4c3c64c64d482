"""Which cells a study has: arms x points of a grid x seeds."""

import contextlib
import dataclasses
import io
import itertools
import types
import typing

from cljax.core import check
from cljax.study.cells import Cell
from cljax.study.keys import cell_key


def check_arms(arms):
    """Raises unless `arms` is a non-empty dict from names to configs."""
    if not isinstance(arms, dict):
        raise TypeError(f"arms must be a dict {{name: config}}, got {type(arms).__name__}")
    if not arms:
        raise ValueError("arms must name at least one config, got {}")
    for name, config in arms.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"arms must have texts as names, got {name!r}")
        if not dataclasses.is_dataclass(config) or isinstance(config, type):
            raise TypeError(f"arms must hold configs (instances of a train.config class), got {name!r}: {type(config).__name__}")


def fields(config, prefix=""):
    """All fields of a config by their dotted names, nested ones after their owner: `{name: (type, value)}`."""
    try:
        hints = typing.get_type_hints(type(config))
    except NameError:
        hints = {}
    result = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        result[prefix + field.name] = (hints.get(field.name, field.type), value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            result |= fields(value, f"{prefix}{field.name}.")
    return result


def parse_sets(settings, configs):
    """The grid that `--set field=v1,v2` describes, `{field: {text: text}}`; the texts get their types from each config in `points`."""
    grid = {}
    for setting in settings:
        name, equals, texts = setting.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not texts:
            raise ValueError(f"--set must be given as field=v1,v2, got {setting!r}")
        _check_field("--set", name, configs)
        grid.setdefault(name, {}).update({text.strip(): text.strip() for text in texts.split(",")})
    return grid


def parse_grid(grid, configs):
    """The grid of `study.sweep`, `{field: [values]}`, in the form of `parse_sets`: `{field: {text: value}}`."""
    if grid is not None and not isinstance(grid, typing.Mapping):
        raise TypeError(f"grid must be a dict {{field: [values]}}, got {type(grid).__name__}")
    result = {}
    for name, values in (grid or {}).items():
        _check_field("grid", name, configs)
        if isinstance(values, str) or not isinstance(values, typing.Iterable):
            raise TypeError(f"grid[{name!r}] must be a list of values, got {values!r}")
        result[name] = {_text(value): value for value in values}
        if not result[name]:
            raise ValueError(f"grid[{name!r}] must have at least one value, got []")
    return result


def _text(value):
    return ":".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _check_field(argument, name, configs):
    for config in configs:
        check.choice(f"{argument}: the field", name, list(fields(config)))


def with_field(config, name, value):
    """The config with one field replaced; `name` may be dotted, `value` a text of the command line or a Python value.

    Texts are read by the field's type: `0.1`, `64` for `int | None`, `None`, `true`, `64:32` for a tuple. Plain Python values are held to the type as
    well.
    """
    return _replaced(config, name.split("."), _read(config, name, value))


def _read(config, name, value):
    """The value of a field that a text or a Python value stands for; ValueError where the field does not take it."""
    kind, _ = fields(config)[name]
    kinds = _members(kind)
    if not isinstance(value, (str, bool, int, float, tuple, list, types.NoneType)) or (not isinstance(value, str) and typing.Any in kinds):
        return value
    sequence = any(typing.get_origin(item) in (tuple, list) or item in (tuple, list) for item in kinds)
    if isinstance(value, (tuple, list)):
        texts = [str(item) for item in value] if sequence else None
    else:
        texts = str(value).split(":") if sequence and str(value) != "None" else [str(value)]
        if bool in kinds and texts[0].lower() in ("true", "false"):
            texts = [texts[0].capitalize()]
    parsed = texts and _parsed(config, name, texts)
    if not parsed:
        hint = " (its parts separated by ':')" if sequence else ""
        raise ValueError(f"{name} must be {kind_name(kind)}{hint}, got {value!r}{check.nearest(value, _choices(kind))}")
    return fields(parsed)[name][1]


def kind_name(kind):
    """A field's type as one writes it: `int | None`; of a `Literal` its choices, `'mean' | 'max'`."""
    plain = (str(item) if typing.get_args(item) else getattr(item, "__name__", str(item)) for item in _members(kind) if not _choices(item))
    return " | ".join([*map(repr, _choices(kind)), *plain]).replace("NoneType", "None")


def _choices(kind):
    """What a field may be that takes only certain values."""
    return [choice for item in _members(kind) if typing.get_origin(item) is typing.Literal for choice in typing.get_args(item)]


def _members(kind):
    """The types that a union joins; of any other type, itself."""
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _parsed(config, name, texts):
    import tyro

    arguments = [f"--{name}={texts[0]}"] if len(texts) == 1 else [f"--{name}", *texts]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return tyro.cli(type(config), default=config, args=arguments, config=(tyro.conf.FlagConversionOff,))
        except SystemExit:
            return None


def _replaced(config, path, value):
    inner = value if len(path) == 1 else _replaced(getattr(config, path[0]), path[1:], value)
    return dataclasses.replace(config, **{path[0]: inner})


def points(grid):
    """The points of a grid: a list of `{field: (text, value)}`; one empty point without a grid."""
    return [dict(zip(grid, choice, strict=True)) for choice in itertools.product(*(values.items() for values in grid.values()))]


def label(point):
    """What a point adds to an arm's name: `[temperature=0.1,steps=20]`, or nothing."""
    return f"[{','.join(f'{name}={text}' for name, (text, _) in point.items())}]" if point else ""


def expand(run, arms, grid, seeds, population=False):
    """All cells of a study: by point of the grid, then by arm, then by seed.

    Args:
      run: the function of the experiment.
      arms: `{name: config}`.
      grid: what `parse_sets` or `parse_grid` gave.
      seeds: how many.
      population: whether the seeds of an arm run as one program.

    Raises:
      ValueError: a value that its field does not take.
    """
    cells, read = [], {}  # a text is parsed once for all arms of a class: it costs more than all else here
    for point in points(grid):
        for base, config in arms.items():
            typed = {}
            for name, (text, value) in point.items():
                place = type(config), str(fields(config)[name][0]), name, text
                typed[name] = read[place] = read[place] if place in read else _read(config, name, value)
                config = _replaced(config, name.split("."), typed[name])
            for seed in range(seeds):
                cells.append(Cell(base + label(point), base, typed, seed, config, cell_key(run, config, seed, population)))
    return cells
