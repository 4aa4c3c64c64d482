"""What a stage depends on: as facts that a checkpoint is compared by, and as one digest that names a shared stage."""

import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cljax.core import provenance

_SOURCES = {"code": "file of the step, the draw or a hook", "package": "version of cljax"}  # the facts that are no values


def facts(key, state, step, data, after):
    """What a run depends on, `{name: text}`: key, step, hooks and data with all bound values, their code, and the state's shapes (not its values).

    Arrays appear as a digest of their content, so that a run that goes on with other data is noticed.
    """
    package = provenance.package_digest()[:16]
    code = sorted({_code(function) for bound in [step, *filter(callable, data), *(hook for _, hook in after)] for function in _functions(bound)})
    kinds = {f"state{jax.tree_util.keystr(path)}": f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    values = {"key": key, "step": step, "data": data, "after": list(after), "code": _hash("".join(code)), "package": package}
    return kinds | {name: text for root, value in values.items() for name, text in _describe(root, value)}


def difference(here, there):
    """One line that says in which values two dicts of facts differ, or None."""
    names = [name for name in {**there, **here} if name not in _SOURCES and here.get(name) != there.get(name)]
    lines = [f"{name} is {here.get(name, 'absent')} here and {there.get(name, 'absent')} there" for name in names[:3]]
    return ", ".join(lines) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else None


def source_difference(here, there):
    """What source differs, or None."""
    return next((text for name, text in _SOURCES.items() if here.get(name) != there.get(name)), None)


def set_aside(folder):
    """Moves all that a stage has written into a folder of its own inside of `folder`, the first `aside-<n>` that is free, and gives it."""
    aside = folder / f"aside-{next(n for n in itertools.count(1) if not (folder / f'aside-{n}').exists())}"
    aside.mkdir()
    for path in folder.iterdir():
        if not path.name.startswith((".", "aside-")):
            path.rename(aside / path.name)
    return aside


def shared_folder(folder):
    """Where stages that several cells share lie: `OUT/shared` for the cell folder `OUT/<experiment>/cells/<cell>`, `folder/shared` for any other."""
    return folder.parents[2] / "shared" if folder.parent.name == "cells" else folder / "shared"


def digest(facts, state, steps):
    """One digest of all that a stage depends on: its facts, its first state, its length and the package."""
    content = dict(item for path, leaf in jax.tree_util.tree_leaves_with_path(state) for item in _describe(jax.tree_util.keystr(path), leaf))
    return _hash(json.dumps([facts, content, steps], sort_keys=True))


def _describe(name, value):
    """Pairs of a place inside `value` and a text that tells what stands there."""
    if isinstance(value, functools.partial):
        yield from _describe(name, value.func)
        value = {**dict(enumerate(value.args)), **value.keywords}
    if dataclasses.is_dataclass(value) and not inspect.isclass(value):
        for field in dataclasses.fields(value):
            yield from _describe(f"{name}.{field.name}", getattr(value, field.name, None))
    elif isinstance(value, Mapping):
        for entry in value:
            yield from _describe(f"{name}[{entry!r}]", value[entry])
    elif isinstance(value, (tuple, list)):
        for index, entry in enumerate(value):
            yield from _describe(f"{name}[{index}]", entry)
    elif isinstance(value, (jax.Array, np.ndarray)):
        yield name, _content(value)
    elif callable(value) and hasattr(value, "__qualname__"):
        yield name, value.__qualname__  # not its module: a script is one module when it is run and another when a worker imports it
    elif value is not None and not jax.tree_util.all_leaves([value]):
        yield from _describe(name, jax.tree.leaves(value))
    else:
        yield name, re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _content(array):
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return f"key {jax.random.key_impl(array)} {np.asarray(jax.random.key_data(array)).tolist()}"
    array = np.ascontiguousarray(array)
    if array.size <= 4:
        return f"{array.dtype} {array.tolist()}"
    return f"{array.dtype}{list(array.shape)} {hashlib.sha256(array.view(np.uint8).data).hexdigest()[:16]}"


def _functions(value):
    """The function, and those that are bound to it."""
    if isinstance(value, functools.partial):
        for entry in (value.func, *value.args, *value.keywords.values()):
            yield from _functions(entry)
    elif inspect.isroutine(value) or hasattr(value, "__wrapped__"):
        yield value


def _code(function):
    """The text of the file that a function is written in, as it may call all that stands there; of the function alone where there is no file."""
    function = inspect.unwrap(function)
    try:
        return Path(inspect.getsourcefile(function)).read_text()
    except (TypeError, OSError):
        pass
    try:
        return inspect.getsource(function)
    except (TypeError, OSError):
        return getattr(function, "__qualname__", type(function).__qualname__)


def _hash(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]
