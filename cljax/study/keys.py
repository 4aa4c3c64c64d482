"""The key of a cell: a hash of all that its numbers depend on."""

import hashlib
import inspect
import json
import re
import sys
from pathlib import Path

import jax

from cljax.core import provenance
from cljax.study import plain


def cell_key(run, config, seed, population=False):
    """The hash of the config, the seed, the script, the package, and what else decides the bits of a cell's numbers."""
    return key_of(facts(run, config, seed, population))


def facts(run, config, seed, population=False):
    """All that a cell's numbers depend on, `{name: text}`.

    Embedded data sets are pinned by their digest in the package's own source, the full-size ones are named in the config.
    """
    settings = [jax.__version__, jax.default_backend(), jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision]
    values = {
        "config": plain.encode(config, run.__module__),
        "seed": seed,
        "run": run.__qualname__,
        "script": script_digest(run),
        "package": provenance.package_digest(),
        "jax": settings,
        "population": population,
    }
    return {name: json.dumps(value, sort_keys=True, default=_text) for name, value in values.items()}


def key_of(facts):
    """The key of the cell that depends on these facts."""
    return _digest(json.dumps(facts, sort_keys=True))[:16]


def script_digest(run):
    """The digest of the file that defines `run` and of its neighbours that it imports; in a notebook, of the source of all that `run` names there."""
    path = plain.script(run)
    if not path:
        return _digest("\n".join(_sources(inspect.unwrap(run), set())))
    return _digest("".join(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in _neighbours(run.__module__, path)))


def _neighbours(module, path):
    """The script, and the modules of its folder and below of which something stands at its top level, or at theirs."""
    found, waiting = {path: None}, [sys.modules[module]]
    while waiting:
        for value in list(vars(waiting.pop()).values()):
            if inspect.isfunction(value) or inspect.isclass(value):
                value = sys.modules.get(value.__module__)
            named = value if inspect.ismodule(value) else None
            file = getattr(named, "__file__", None)
            if not isinstance(file, str) or named.__name__.partition(".")[0] == "cljax" or "site-packages" in file:
                continue
            file = Path(file).resolve()
            if file.is_relative_to(path.parent) and file.suffix == ".py" and file not in found:
                found[file] = None
                waiting.append(named)
    return sorted(found)


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def _text(value):
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _sources(item, seen):
    """The source of a function or class and of what of its module it names, functions and values alike."""
    seen.add(item)
    try:
        yield inspect.getsource(item)
    except (OSError, TypeError):
        yield f"{item.__qualname__} {_code(item.__code__) if inspect.isfunction(item) else ''}"
    for name in _names(item.__code__) if inspect.isfunction(item) else ():
        value = item.__globals__.get(name)
        if inspect.isfunction(value) or inspect.isclass(value):
            if value.__module__ == item.__module__ and value not in seen:
                yield from _sources(value, seen)
        elif name in item.__globals__ and not inspect.ismodule(value):
            yield f"{name} = {_text(value)}"


def _code(code):
    return code.co_code, code.co_names, [_code(constant) if inspect.iscode(constant) else _text(constant) for constant in code.co_consts]


def _names(code):
    return sorted({*code.co_names}.union(*(_names(constant) for constant in code.co_consts if inspect.iscode(constant))))
