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

    def due(self, step):
        """The numbers of the hooks that are due after `step` steps."""
        return [number for number, (every, _) in enumerate(self.after) if step and (step % every == 0 or step == self.steps)]

    def extra(self, step):
        """Whether a hook is due after `step` steps only because they are the last ones."""
        return any(step % self.after[number][0] for number in self.due(step))

    def stop(self, step):
        """The next step after `step` at which hooks are due or the run ends."""
        return min([self.steps, *((step // every + 1) * every for every, _ in self.after)])

    def call(self, number, step, state):
        """Calls a hook; gives the state and `{name: value}`."""
        who = f"hook {number} of after"
        key = self.key
        for entry in (_HOOK_STREAM, number, step):
            key = jax.random.fold_in(key, entry)
        result = self.after[number][1](key, jax.tree.map(lambda leaf: leaf, state))  # its own containers, which it may change in place
        if not (isinstance(result, tuple) and len(result) == 2):
            raise ValueError(f"{who} must return (state, metrics), got {type(result).__name__}")
        check_metrics(who, result[1])
        return keep(state, result[0], who), dict(result[1] or {})


def check_names(names, calls, number, row):
    """Raises ValueError where hook `number` names a metric as the step (`names`) or another hook does, or gives it another shape than before."""
    for name, value in row.items():
        owners = ["the step"] * (name in names) + [f"hook {other}" for _, other, earlier in calls if name in earlier and other != number]
        if owners:
            raise ValueError(f"hook {number} of after returns a metric {name!r}, which {owners[0]} returns too: give it another name")
        shapes = {np.shape(earlier[name]) for _, _, earlier in calls if name in earlier} - {np.shape(value)}
        if shapes:
            raise ValueError(f"hook {number} of after returns {name!r} with shape {np.shape(value)}, before it was {shapes.pop()}")
