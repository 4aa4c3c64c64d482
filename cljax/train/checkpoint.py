"""Checkpoints on disk: complete or absent, checked when they are read. The only module that knows orbax.

A checkpoint is a folder `<step>-<calls of hooks>` with `state/` (orbax), `position.pkl` (metrics so far, an iterator's state) and `manifest.json`,
which is written last and holds a SHA-256 of every other file and of itself. It comes to its place by one rename; the last two are kept.
"""

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import tempfile
import threading
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp

_KEPT = 2
_LOCK = threading.Lock()  # orbax numbers the operations of a process, and takes two at once for one


class Damaged(ValueError):
    """A checkpoint whose files are not those that were written."""


def check_writable(folder):
    """Makes the folder; raises ValueError where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"folder must be a folder that can be written to, got {str(folder)!r}: {error}") from None


def save(folder, state, position, facts):
    """Saves `state`, a pytree of arrays, `position`, a dict with `step`, `calls` and whatever can be pickled, and `facts`, a dict of strings."""
    name = f"{position['step']}-{len(position['calls'])}"
    folder.mkdir(parents=True, exist_ok=True)
    place, temporary = folder / name, Path(tempfile.mkdtemp(prefix=f".{name}-{os.getpid()}-", dir=folder))
    arrays = _arrays(state)
    if arrays:
        with _LOCK:
            _orbax().save(temporary / "state", arrays)
    (temporary / "position.pkl").write_bytes(pickle.dumps(position))
    text = json.dumps({"facts": facts, "calls": [call[:2] for call in position["calls"]], "files": _digests(temporary)}, indent=1, sort_keys=True)
    (temporary / "manifest.json").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
    if not (place / "manifest.json").exists():
        shutil.rmtree(place, ignore_errors=True)
    try:
        temporary.rename(place)
    except OSError:  # another worker published the same stage first, with the same bits
        shutil.rmtree(temporary)
    abandoned = [path for path in folder.glob(".*-*") if time.time() - path.stat().st_mtime > 3600]  # by processes that were killed
    for old in [*_complete(folder)[_KEPT:], *abandoned]:
        shutil.rmtree(old, ignore_errors=True)


def find(folder, accept):
    """The newest undamaged checkpoint whose manifest `accept` takes, as `(path, manifest)`; None where there is none.

    A damaged one is removed with a warning where an older one can take its place; half-written ones are not seen.

    Raises:
      ValueError: all there are are damaged.
    """
    damaged = []
    for path in _complete(folder):
        try:
            manifest = _check(path)
        except FileNotFoundError:  # another worker of a shared stage has saved two newer ones meanwhile
            continue
        except Damaged as error:
            damaged.append((path, error))
            continue
        if accept(manifest):
            for bad, error in damaged:
                warnings.warn(f"{error}; going on from {path.name} instead", stacklevel=3)
                shutil.rmtree(bad, ignore_errors=True)
            return path, manifest
    if damaged:
        raise ValueError(f"{damaged[0][1]}; no sound checkpoint is left: remove {str(folder)!r} to start anew") from None
    return None


def load(path, state):
    """The saved state, with the structure, dtypes and devices of `state`, and the saved position."""
    arrays = _arrays(state)
    if arrays:
        with _LOCK:
            arrays = _orbax().load(path / "state", arrays)
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    restored = [_restore(leaf, arrays.get(jax.tree_util.keystr(path))) for path, leaf in leaves]
    return jax.tree.unflatten(structure, restored), pickle.loads((path / "position.pkl").read_bytes())


def _arrays(state):
    """The leaves by path, as orbax stores them: it takes neither empty arrays nor every kind of pytree, and keys as their data."""
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state) if leaf.size}
    return {name: jax.random.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in leaves.items()}


def _restore(leaf, array):
    if array is None:
        return leaf
    array = jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array
    return jax.device_put(array, leaf.sharding)


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _complete(folder):
    """Complete checkpoints, the newest first."""
    found = [path.parent for path in folder.glob("[0-9]*-[0-9]*/manifest.json")] if folder.is_dir() else []
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("-"))), reverse=True)


def _check(path):
    digest, _, text = (path / "manifest.json").read_bytes().partition(b"\n")
    if digest.decode(errors="replace") != hashlib.sha256(text).hexdigest():
        raise Damaged(f"checkpoint {str(path)!r} is damaged: its manifest.json is not what was written")
    manifest = json.loads(text)
    found = _digests(path)
    for name, expected in manifest["files"].items():
        if found.get(name) != expected:
            raise Damaged(f"checkpoint {str(path)!r} is damaged: its {name} {'is not what was written' if name in found else 'is missing'}")
    return manifest


def _digests(folder):
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "manifest.json"):
        with open(path, "rb") as file:
            digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _orbax():
    with contextlib.suppress(ImportError):
        import orbax.checkpoint.v1 as orbax

        return orbax
    import orbax.checkpoint.experimental.v1 as orbax

    return orbax
