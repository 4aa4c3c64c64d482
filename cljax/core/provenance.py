"""What results come from: the data that this process has read (`data.load` records it, a study's report prints it), and the source of cljax."""

import functools
import hashlib
from pathlib import Path

_recorded = {}


def record(name, **facts):
    """Notes what is known of a data set that was read: `record("digits", rows=1797, digest="sha256:...")`. Plain values only."""
    _recorded[name] = facts


def recorded():
    """All that was recorded in this process, `{name: {fact: value}}`: a copy."""
    return {name: dict(facts) for name, facts in _recorded.items()}


@functools.cache
def package_digest():
    """The digest of the whole source of cljax, by which results of other code are told apart."""
    root = Path(__file__).parents[1]
    lines = (f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in sorted(root.rglob("*.py")))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
