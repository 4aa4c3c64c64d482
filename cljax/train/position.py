"""How far a run has come: its steps, the metrics so far and the hooks that were called."""

import bisect
import operator

import jax
import numpy as np


class Position:
    """Steps taken, and what they and the hooks measured.

    Attributes:
      step: the number of steps taken.
      calls: `(step, number, {name: array})` for each call of hook `number`, in order.
    """

    def __init__(self):
        self.step, self.calls, self._starts, self._blocks, self._sound = 0, [], [], [], 0

    def add(self, metrics, count):
        """Notes the metrics of `count` steps, as a program returns them; they stay on the device until they are asked for."""
        self._starts.append(self.step)
        self._blocks.append((metrics, count))
        self.step += count

    def restore(self, kept):
        """Goes to where `kept` stands: a dict of `step`, `metrics` and `calls`."""
        if kept["step"]:
            self.add(kept["metrics"], kept["step"])
        self._sound, self.calls = self.step, kept["calls"]

    def mark(self):
        """What differs between any two positions of a run."""
        return self.step, len(self.calls)

    def pending(self, hooks):
        """The hooks that are due here and were not called yet."""
        called = {number for _, number, _ in self._calls(self.step)}
        return [number for number in hooks.due(self.step) if number not in called]

    def metrics(self, start=0, stop=None):
        """The metrics of steps `start` to `stop` (each a step where a chunk ends) as numpy arrays, `{name: [steps, ...]}`."""
        first, last = (bisect.bisect_left(self._starts, self.step if bound is None else bound) for bound in (start, stop))
        self._blocks[first:last] = [(_fetch(*block), block[1]) for block in self._blocks[first:last]]
        return join([metrics for metrics, _ in self._blocks[first:last]])

    def find_nan(self, stop):
        """The first of the steps up to `stop` that has a metric with a NaN, as `(step, name)`, the first step being 1; None where none has."""
        start = self._sound
        if stop <= start:
            return None
        rows = {name: np.isnan(values).reshape(stop - start, -1).any(1) for name, values in self.metrics(start, stop).items() if values.size}
        found = [(start + int(np.argmax(bad)) + 1, name) for name, bad in rows.items() if bad.any()]
        if not found:
            self._sound = stop
        return min(found, key=operator.itemgetter(0), default=None)

    def names(self):
        """The names of the step's metrics, once a step was taken."""
        metrics = self._blocks[-1][0] if self._blocks else {}
        return set(metrics[0] if isinstance(metrics, list) else metrics)

    def rows(self, start, stop):
        """What can be logged of these steps, `(step, {name: float})`, the first step being 1; a hook's metrics stand with the step before it."""
        columns = {name: values.tolist() for name, values in self.metrics(start, stop).items() if values.ndim == 1}
        rows = {step + 1: {name: values[step - start] for name, values in columns.items()} for step in range(start, stop)}
        for step, _, metrics in self._calls(start + 1, stop):
            rows[step] |= {name: float(value) for name, value in metrics.items() if np.ndim(value) == 0}
        return list(rows.items())

    def _calls(self, first, last=None):
        """The calls after steps `first` to `last`."""
        start = bisect.bisect_left(self.calls, first, key=operator.itemgetter(0))
        return self.calls[start : bisect.bisect_right(self.calls, first if last is None else last, key=operator.itemgetter(0))]


def history(metrics, calls, numpy=np):
    """`{name: [steps, ...]}` of the steps with `{name: [calls, ...]}` of the hooks; `numpy` is jax.numpy where these are traced."""
    by_call = {}
    for _, _, row in calls:
        for name, value in row.items():
            by_call.setdefault(name, []).append(value)
    return {**metrics, **{name: numpy.stack(values) for name, values in by_call.items()}}


def join(blocks, numpy=np):
    """Blocks of metrics, one after the other."""
    return {name: numpy.concatenate([block[name] for block in blocks]) for name in (blocks[0] if blocks else ())}


def _fetch(metrics, count):
    if isinstance(metrics, list):
        metrics = jax.device_get(metrics)
        return {name: np.stack([row[name] for row in metrics]) for name in metrics[0]}
    return {name: values if isinstance(values, np.ndarray) else np.asarray(values)[:count].copy() for name, values in metrics.items()}
