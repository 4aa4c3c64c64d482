"""An experiment's function and configs as plain values, and back: what a cell is sent as to a worker that shares nothing with its sender."""

import dataclasses
import enum
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path

import numpy as np


def encode(value, home):
    """Plain values for a config: `{"class": "Config", field: value, ...}`, nested configs alike, functions and classes as `{"named": ...}`.

    A class of the module `home` (the script, whatever it is called in another process) is named bare, any other as `module:name`. What is neither of
    these nor a container stays as it is.
    """

    def name(item, suffix=""):
        return ("" if item.__module__ == home else f"{item.__module__}:") + item.__qualname__ + suffix

    if isinstance(value, enum.Enum):
        return {"named": name(type(value), f".{value.name}")}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"class": name(type(value))} | {
            field.name: encode(getattr(value, field.name), home) for field in dataclasses.fields(value) if field.init
        }
    if isinstance(value, dict):
        return {"dict": {key: encode(item, home) for key, item in value.items()}}
    if type(value) in (list, tuple):
        return type(value)(encode(item, home) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if inspect.isfunction(value) or isinstance(value, type):
        return {"named": name(value)}
    return value


def decode(value, source):
    """The inverse of `encode`, given the address of the script; a config that was not encoded is returned as it is."""
    if isinstance(value, dict):
        if "named" in value:
            return _named(value["named"], source)
        if "dict" in value:
            return {key: decode(item, source) for key, item in value["dict"].items()}
        return _named(value["class"], source)(**{name: decode(item, source) for name, item in value.items() if name != "class"})
    if type(value) in (list, tuple):
        return type(value)(decode(item, source) for item in value)
    return value


def _named(name, source):
    module, _, path = name.rpartition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module) if module else load_module(*source[:2]))


def script(run):
    """The path of the file that defines `run`, or None: a notebook's cells have none."""
    file = getattr(sys.modules.get(run.__module__), "__file__", None)
    return Path(file).resolve() if file and os.path.isfile(file) else None


def address(run):
    """Where a worker finds `run`: `[path of the script, name of its module, name of the function]`; the function itself where no file defines it."""
    path = script(run)
    return [str(path), run.__module__, run.__qualname__] if path else run


def resolve(source):
    """The function at an address."""
    path, module, name = source
    return functools.reduce(getattr, name.split("."), load_module(path, module))


def load_module(path, name):
    """The module of a script: the one that is loaded already, under whatever name, else the one of that name, else the file by its path."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and os.path.basename(file) == os.path.basename(path) and os.path.realpath(file) == path:
            return module
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin and os.path.realpath(spec.origin) == path:
        return importlib.import_module(name)
    name = f"cljax_script_{Path(path).stem}_{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if os.path.dirname(path) not in sys.path:  # as for a script that is run: its neighbours can be imported
        sys.path.insert(0, os.path.dirname(path))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
