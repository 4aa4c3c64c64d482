"""Checkpoints on disk: complete or absent, checked when they are read. The only module that knows orbax.

A checkpoint is a folder `<step>-<calls of hooks>` with the state in `state/` (orbax; `state.json` and `state.bin` where several processes train as
one), the metrics so far and an iterator's state in `position.json` and `position.bin`, and `manifest.json`, which is written last and holds a SHA-256
of every other file and of itself. It comes to its place by one rename; the last two are kept. A damaged one is never touched: one that is saved at
the same position gets a third number, `<step>-<calls>-1`.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np

from cljax.core.provenance import digests as _digests
from cljax.train import record
from cljax.train.devices import put

_KEPT = 2
_LOCK = threading.Lock()  # orbax numbers the operations of a process, and takes two at once for one
_POSITION, _STATE = ("position.json", "position.bin"), ("state.json", "state.bin")


class Damaged(ValueError):
    """A checkpoint whose files are not those that were written."""


class Unwritable(OSError):
    """What can't be written, why, and that no harm is done."""

    def __str__(self):
        return f"{self.filename!r} can't be written: {self.strerror}; what was saved before stays as it is"


def check_writable(folder):
    """Makes the folder; raises ValueError where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"folder must be a folder that can be written to, got {str(folder)!r}: {error}") from None


@contextlib.contextmanager
def writing(path):
    """Turns what goes wrong while `path` is written into one Unwritable."""
    try:
        yield
    except Exception as error:  # orbax raises what it likes where a disk is full
        number, reason = getattr(error, "errno", None), getattr(error, "strerror", None)
        if "No space left" in str(error):
            number, reason = errno.ENOSPC, "no space is left on the device"
        elif not path.parent.is_dir():
            number, reason = errno.ENOENT, "its folder is gone"
        reason = reason or (str(error).splitlines() or [type(error).__name__])[0]
        raise Unwritable(number or errno.EIO, reason, str(path)) from None


def snapshot(state):
    """The arrays of a state on the host, by path: copies, which no program writes into. Empty ones, which orbax does not take, are left out."""
    arrays = _arrays(state)
    for array in arrays.values():
        array.copy_to_host_async()
    return {name: np.array(array.addressable_data(0)) for name, array in arrays.items()}


def save(folder, arrays, position, manifest, ours):
    """Saves what `snapshot` gave, and `position`, a dict with `step`, `calls` and whatever `record` can pack.

    Args:
      folder: where the checkpoints lie. It has to be there: one that was deleted is not made anew.
      arrays: the state.
      position: where the run stands.
      manifest: what is known of the run, for `sound`.
      ours: the names of checkpoints that this process has written, which gains one: others are removed only where they are not damaged.
    """
    name = f"{position['step']}-{len(position['calls'])}"
    with writing(folder / name):
        if sum(array.nbytes for array in arrays.values()) + 2**16 > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # orbax would leave tracebacks of its threads
        temporary = folder / os.path.basename(tempfile.mkdtemp(prefix=f".{name}-{os.getpid()}-", dir=folder))
        try:
            _write(temporary, arrays)
            text, block = record.pack(position)
            (temporary / _POSITION[0]).write_text(text)
            (temporary / _POSITION[1]).write_bytes(block)
            text = json.dumps(manifest | {"calls": [call[:2] for call in position["calls"]], "files": _digests(temporary)}, indent=1, sort_keys=True)
            (temporary / "manifest.json").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
            ours.add(_publish(temporary, folder, name))
        except Exception:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    for old in _complete(folder, ours)[_KEPT:]:
        gone = folder / f".{old.name}-{os.getpid()}-old"
        with contextlib.suppress(OSError):
            shutil.rmtree(old.rename(gone))  # it is gone at once for whoever reads beside us


def sweep(folder, seconds=0):
    """Removes what processes that were killed more than so many seconds ago had half written."""
    for path in folder.glob(".*-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


def sound(folder):
    """The undamaged checkpoints as `(path, manifest, damaged)`, the newest first; `damaged` are lines on the damaged ones that are newer.

    Raises:
      ValueError: the caller has asked for all there are, and some were damaged.
    """
    damaged = []
    for path in _found(folder):
        try:
            manifest = _check(path)
        except FileNotFoundError:  # another worker of a shared stage has saved two newer ones meanwhile
            continue
        except Damaged as error:
            damaged.append(str(error))
            continue
        yield path, manifest, damaged
    if damaged:
        raise ValueError(f"{damaged[0]}; there is no other one to go on from: move {str(folder)!r} away to start anew")


def load(path, state):
    """The saved state, with the structure, dtypes and devices of `state`, and the saved position."""
    arrays = _read_arrays(path)
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    restored = [_restore(leaf, arrays.get(jax.tree_util.keystr(path))) for path, leaf in leaves]
    return jax.tree.unflatten(structure, restored), record.unpack((path / _POSITION[0]).read_text(), (path / _POSITION[1]).read_bytes())


def _write(folder, arrays):
    """Writes the arrays by orbax; where several processes train as one, of which this one alone saves, as a block, since orbax would wait for all."""
    if jax.process_count() > 1:
        for name, content in zip(_STATE, record.pack(arrays), strict=True):
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    elif arrays:
        with _LOCK:
            _orbax().save(folder / "state", arrays)


def _read_arrays(path):
    if (path / _STATE[0]).exists():
        return record.unpack((path / _STATE[0]).read_text(), (path / _STATE[1]).read_bytes())
    if not (path / "state").exists():
        return {}
    with _LOCK:
        return _orbax().load(path / "state")


def _publish(temporary, folder, name):
    """Renames to the first name that is free; a whole one that is there already, of another worker of the same stage, has the same bits."""
    for number in range(1000):
        place = folder / (f"{name}-{number}" if number else name)
        if not place.exists():
            with contextlib.suppress(OSError):
                temporary.rename(place)
                return place.name
        with contextlib.suppress(Damaged, FileNotFoundError):
            _check(place)
            shutil.rmtree(temporary)
            return place.name
    raise OSError(f"{name} has too many damaged checkpoints beside it")


def _arrays(state):
    """The leaves by path; keys as their data."""
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state) if leaf.size}
    return {name: jax.random.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in leaves.items()}


def _restore(leaf, array):
    if array is None:
        return leaf
    array = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf)) if _is_key(leaf) else np.asarray(array, leaf.dtype)
    return put(array, leaf.sharding)


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _found(folder):
    """All checkpoints, damaged ones too, the newest first."""
    found = [path for path in folder.glob("[0-9]*-[0-9]*") if all(map(str.isdecimal, path.name.split("-")))] if folder.is_dir() else []
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("-"))), reverse=True)


def _complete(folder, ours):
    """The undamaged ones, the newest first."""
    complete = []
    for path in _found(folder):
        with contextlib.suppress(Damaged, FileNotFoundError):
            if path.name not in ours:
                _check(path)
            complete.append(path)
    return complete


def _check(path):
    """The manifest of a checkpoint whose files are what they were; raises Damaged, or FileNotFoundError where it is gone."""
    try:
        return _read(path)
    except Damaged:
        if not path.is_dir():
            raise FileNotFoundError(path) from None
        raise


def _read(path):
    try:
        digest, _, text = (path / "manifest.json").read_bytes().partition(b"\n")
    except OSError as error:
        raise Damaged(f"checkpoint {str(path)!r} is damaged: its manifest.json can't be read, {(error.strerror or str(error)).lower()}") from None
    if digest.decode(errors="replace") != hashlib.sha256(text).hexdigest():
        raise Damaged(f"checkpoint {str(path)!r} is damaged: its manifest.json is not what was written")
    manifest = json.loads(text)
    if not {*_POSITION} <= {*manifest["files"]}:
        raise Damaged(f"checkpoint {str(path)!r} was written by another version of cljax")
    try:
        found = _digests(path)
    except OSError as error:
        raise Damaged(
            f"checkpoint {str(path)!r} is damaged: {str(error.filename)!r} can't be read, {(error.strerror or str(error)).lower()}"
        ) from None
    for name, expected in manifest["files"].items():
        if found.get(name) != expected:
            raise Damaged(f"checkpoint {str(path)!r} is damaged: its {name} {'is not what was written' if name in found else 'is missing'}")
    return manifest


def _orbax():
    with contextlib.suppress(ImportError):
        import orbax.checkpoint.v1 as orbax

        return orbax
    import orbax.checkpoint.experimental.v1 as orbax

    return orbax
