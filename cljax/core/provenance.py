"""What results come from: the data that this process has read (`data.load` records it, a study's report prints it), the source of cljax, and whether
the files of a folder are still those that were written."""

import contextlib
import contextvars
import functools
import hashlib
import json
from pathlib import Path

_MANIFEST = "manifest.json"
_recorded = {}
_watch = contextvars.ContextVar("watch", default=None)


def record(name, **facts):
    """Notes what is known of a data set that was read: `record("digits", rows=1797, digest="sha256:...")`. Plain values only."""
    if (watch := _watch.get()) is None:
        _recorded[name] = facts
    else:
        watch(name, facts)


@contextlib.contextmanager
def watched(watch):
    """Calls `watch(name, facts)` for what this thread records in the block, instead of noting it for the whole process."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def recorded():
    """All that was recorded in this process, outside of a `watched` block, `{name: {fact: value}}`: a copy."""
    return {name: dict(facts) for name, facts in _recorded.items()}


@functools.cache
def package_digest():
    """The digest of the whole source of cljax, by which results of other code are told apart."""
    root = Path(__file__).parents[1]
    lines = (f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in sorted(root.rglob("*.py")))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def seal(folder):
    """Writes `manifest.json`, the SHA-256 of every other file of a folder, headed by its own; `broken` compares."""
    text = json.dumps(digests(folder), indent=1, sort_keys=True)
    (Path(folder) / _MANIFEST).write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


def broken(folder):
    """The name of a file that is not what it was when the folder was sealed, or None; that of the manifest where it is not to be trusted itself."""
    folder = Path(folder)
    try:
        digest, _, text = (folder / _MANIFEST).read_bytes().partition(b"\n")
    except OSError:
        return _MANIFEST
    if digest.decode(errors="replace") != hashlib.sha256(text).hexdigest():
        return _MANIFEST
    expected, found = json.loads(text), digests(folder)
    return next((name for name in sorted(expected | found) if expected.get(name) != found.get(name)), None)


def digests(folder):
    """The SHA-256 of every file of a folder and below but for its manifest, `{path in it: digest}`."""
    folder, found = Path(folder), {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _MANIFEST):
        with open(path, "rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
