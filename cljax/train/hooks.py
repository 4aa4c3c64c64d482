"""Hooks: functions of the state that run between two steps, outside of the compiled loop."""

import dataclasses
from typing import Any

import jax
import numpy as np

from cljax.train.draws import DATA_STREAM
from cljax.train.program import check_metrics, keep

_HOOK_STREAM = DATA_STREAM - 1


@dataclasses.dataclass(frozen=True)
class Hooks:
    """The hooks of a run.

    Attributes:
      after: pairs `(every, hook)`: a hook is due after every `every` steps and after the last one.
      steps: the steps of the run.
      key: the run's key, folded with its name.
    """

    after: Any
    steps: int
    key: Any
    _owners: dict = dataclasses.field(default_factory=dict)  # by metric, the hook that returned it first and its shape

    def due(self, step):
        """The numbers of the hooks that are due after `step` steps."""
        return [number for number, (every, _) in enumerate(self.after) if step and (step % every == 0 or step == self.steps)]

    def extra(self, step):
        """Whether a hook is due after `step` steps only because they are the last ones."""
        return any(step % self.after[number][0] for number in self.due(step))

    def stop(self, step):
        """The next step after `step` at which hooks are due or the run ends."""
        return min([self.steps, *((step // every + 1) * every for every, _ in self.after)])

    def call(self, number, step, state, names):
        """Calls a hook; gives the state and `{name: value}`, none of them in `names`, the step's own metrics."""
        who = f"hook {number} of after"
        key = self.key
        for entry in (_HOOK_STREAM, number, step):
            key = jax.random.fold_in(key, entry)
        result = self.after[number][1](key, jax.tree.map(lambda leaf: leaf, state))  # its own containers, which it may change in place
        if not (isinstance(result, tuple) and len(result) == 2):
            raise ValueError(f"{who} must return (state, metrics), got {type(result).__name__}")
        check_metrics(who, result[1])
        row = dict(result[1] or {})
        for name, value in row.items():
            owner, shape = self._owners.setdefault(name, (number, np.shape(value)))
            if name in names or owner != number:
                other = "the step" if name in names else f"hook {owner}"
                raise ValueError(f"{who} returns a metric {name!r}, which {other} returns too: give it another name")
            if shape != np.shape(value):
                raise ValueError(f"{who} returns {name!r} with shape {np.shape(value)}, before it was {shape}")
        return keep(state, result[0], who), row
