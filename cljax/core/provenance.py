"""Which data this process has read: `data.load` records it, a study's report prints it."""

_recorded = {}


def record(name, **facts):
    """Notes what is known of a data set that was read: `record("digits", rows=1797, digest="sha256:...")`. Plain values only."""
    _recorded[name] = facts


def recorded():
    """All that was recorded in this process, `{name: {fact: value}}`: a copy."""
    return {name: dict(facts) for name, facts in _recorded.items()}
