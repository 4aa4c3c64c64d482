"""The key of a cell: a hash of all that its numbers depend on."""

import hashlib
import inspect
import json
import re

import jax

from cljax.core import provenance
from cljax.study import plain


def cell_key(run, config, seed, population=False):
    """The hash of the config, the seed, the script, the package, and what else decides the bits of a cell's numbers.

    Embedded data sets are pinned by their digest in the package's own source, the full-size ones are named in the config.
    """
    facts = {
        "config": plain.encode(config, run.__module__),
        "seed": seed,
        "run": run.__qualname__,
        "script": script_digest(run),
        "package": provenance.package_digest(),
        "jax": [jax.__version__, jax.default_backend(), jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision],
        "population": population,
    }
    return _digest(json.dumps(facts, sort_keys=True, default=_text))[:16]


def script_digest(run):
    """The digest of the file that defines `run`; in a notebook, of the source of all that `run` names there."""
    path = plain.script(run)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else _digest("\n".join(_sources(inspect.unwrap(run), set())))


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
