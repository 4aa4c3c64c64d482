"""What a study keeps on disk: each file is whole or not there at any moment, and a result is known to be what was written."""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from pathlib import Path


class Unwritable(OSError):
    """A result that could not be kept; the message is one line that says where and why."""


def write(path, content):
    """Writes a text, or bytes, so that the file is whole or as it was before at any moment, also where the machine stops.

    Raises:
      Unwritable: no space, a read-only folder; what was there is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise Unwritable(f"{path} could not be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace(folder, contents, stale=()):
    """Puts several files into a folder, `{name: text or bytes}`, and takes the stale ones away.

    All are written before the first is put in its place: where there is no space for all of them, none is changed. The last one, `.published`, holds
    their digests: where a process is killed while it puts them in their places, they don't agree with it.

    Raises:
      Unwritable: no space, a read-only folder; what was there is as it was.
    """
    scratch = folder / ".new"
    contents = {name: content.encode() if isinstance(content, str) else content for name, content in contents.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        changed = [name for name, content in contents.items() if not (folder / name).is_file() or (folder / name).read_bytes() != content]
        for name, content in [*((name, contents[name]) for name in changed), (".published", dumps(digests))]:
            write(scratch / name, content)
        for name in changed:
            os.replace(scratch / name, folder / name)
        for name in stale:
            (folder / name).unlink(missing_ok=True)
        os.replace(scratch / ".published", folder / ".published")
        scratch.rmdir()
    except Unwritable:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    except OSError as error:
        raise Unwritable(f"{folder} could not be written: {error.strerror or error}") from None


def published(folder):
    """The contents that `replace` put into a folder, `{name: bytes}`, if all are as they were; else an empty dict."""
    try:
        digests = json.loads((folder / ".published").read_bytes())
        contents = {name: (folder / name).read_bytes() for name in digests}
        whole = all(hashlib.sha256(contents[name]).hexdigest() == digests[name] for name in digests)
    except (OSError, ValueError, TypeError):
        return {}
    return contents if whole else {}


def dumps(value):
    """Strict JSON, a list of numbers on one line: numbers that are not finite become null."""
    text = json.dumps(_floats(value, lambda x: x if math.isfinite(x) else None), indent=1, allow_nan=False, default=repr)
    return re.sub(r'\[\n[^][{}"]*\]', lambda match: re.sub(r"\s+", " ", match[0]).replace("[ ", "[").replace(" ]", "]"), text) + "\n"


def keep(folder, result):
    """Writes `result.json`, whose presence says that the cell is finished; numbers that are not finite as texts, and last its own digest."""
    result = json.loads(json.dumps(_floats(result, lambda x: x if math.isfinite(x) else str(x)), default=repr))
    write(Path(folder) / "result.json", dumps(result | {"sha256": _digest(result)}))
    with contextlib.suppress(OSError):
        (Path(folder) / "error.txt").unlink(missing_ok=True)


def fail(folder, reason):
    """Writes `error.txt`, the reason for which a cell failed, where it can be written."""
    with contextlib.suppress(OSError):
        write(Path(folder) / "error.txt", reason + "\n" * (not reason.endswith("\n")))


def finished(folder, damaged=lambda path: None):
    """The result that a folder holds, or None; `damaged` is called with the path of one that is not what was written."""
    path = Path(folder) / "result.json"
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        result = json.loads(content)
        if result.pop("sha256") != _digest(result):
            raise ValueError
        metrics = result["metrics"].items()
        result["metrics"] = {name: [float(x) for x in value] if isinstance(value, list) else float(value) for name, value in metrics}
    except (ValueError, KeyError, TypeError, AttributeError):  # not JSON, not text, or JSON of something else
        damaged(path)
        return None
    return result


def set_aside(folder):
    """Moves a cell's folder, `OUT/<experiment>/cells/<key>`, to `OUT/<experiment>/aside/<key>-<n>`, which it returns: nothing is ever deleted.

    In its place is an empty one, with the `config.json` that says which cell it is.
    """
    place, number = folder.parents[1] / "aside", 1
    try:
        place.mkdir(exist_ok=True)
        while (target := place / f"{folder.name}-{number}").exists():
            number += 1
        os.rename(folder, target)
        folder.mkdir()
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(target / "config.json", folder)
    except OSError as error:
        raise Unwritable(f"{folder} could not be moved to {place}: {error.strerror or error}") from None
    return target


def tidy(folder):
    """Takes away what a killed process may have left half written in a cell's folder."""
    for path in Path(folder).glob(".*.*.[0-9]*"):
        path.unlink(missing_ok=True)


def _digest(result):
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def _floats(value, function):
    if isinstance(value, dict):
        return {key: _floats(item, function) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_floats(item, function) for item in value]
    return function(value) if isinstance(value, float) else value
