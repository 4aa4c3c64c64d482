"""Configurations: frozen dataclasses whose floats are traced, so that two of them that differ in a float share a compiled program."""

import dataclasses
import inspect
import types
import typing

import jax


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def config(cls: type) -> type:
    """Makes a class a frozen dataclass that is also a pytree.

    In compiled code the fields annotated `float` (or `float | None`) and nested configs are data, which is traced; all other fields are part of the
    structure, and so is a float declared with `field(metadata={"static": True})`. Outside of compiled code every field is a plain Python value.

    Args:
      cls: a class with annotated fields, as for `dataclasses.dataclass`. Values of static fields must be hashable: tuples, not lists.

    Returns:
      The class, frozen, with `==`, `hash`, `repr` and `dataclasses.replace`. An int given to a float field becomes a float, so that it is traced too.

    Raises:
      TypeError: `cls` is not a class, an annotation cannot be resolved, or (on construction) a static field's value is not hashable.

    >>> @config
    ... class Config:
    ...     temperature: float = 0.1
    ...     widths: tuple[int, ...] = (128, 64)
    >>> jax.tree.leaves(Config(temperature=1))
    [1.0]
    """
    if not inspect.isclass(cls):
        raise TypeError(f"train.config decorates a class, got {type(cls).__name__}")
    written = getattr(cls, "__post_init__", None)

    def __post_init__(self):
        if written is not None:
            written(self)
        for name in data:
            if type(getattr(self, name)) is int:
                object.__setattr__(self, name, float(getattr(self, name)))
        for name in static:
            try:
                hash(getattr(self, name))
            except TypeError:
                kind = type(getattr(self, name)).__name__
                raise TypeError(f"{cls.__name__}.{name} must be hashable (a tuple instead of a list), got {kind}") from None

    cls.__post_init__ = __post_init__
    cls.__train_config__ = cls
    cls = dataclasses.dataclass(frozen=True)(cls)
    kinds = _kinds(cls, inspect.currentframe().f_back.f_locals)
    fields = [field for field in dataclasses.fields(cls) if field.init]
    data = [field.name for field in fields if _is_data(kinds[field.name]) and not field.metadata.get("static", False)]
    static = [field.name for field in fields if field.name not in data]
    return jax.tree_util.register_dataclass(cls, data_fields=data, meta_fields=static)


def _kinds(cls, names):
    """The annotations as types, also where they are written as strings; `names` are those visible where the class is defined."""
    try:
        return typing.get_type_hints(cls, localns={**names, cls.__name__: cls})
    except NameError as error:
        raise TypeError(f"an annotation of {cls.__name__} cannot be resolved: {error}") from None


def _is_data(kind):
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(kind) if member is not type(None)]
        return bool(members) and all(map(_is_data, members))
    return kind is float or getattr(kind, "__train_config__", None) is kind
