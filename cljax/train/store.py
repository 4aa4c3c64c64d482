"""Where a stage's checkpoints lie, how they are written while the run goes on, and how a run finds its way back to the newest."""

import concurrent.futures
import contextlib
import copy
import time
import warnings

from cljax.core.lock import hold
from cljax.train import checkpoint, record, stage
from cljax.train.draws import Draws
from cljax.train.processes import from_first, is_first


@contextlib.contextmanager
def open_store(folder, shared, save_seconds, key, state, step, data, hooks):
    """The store of the stage that `fit` is called for; its own things go to `folder`, the checkpoints of a shared one to where other cells find them.

    Raises:
      ValueError: nothing can be written there, another process does, or a shared stage gets its batches from an iterator, of which nothing can be
        known beforehand.
      TypeError: the iterator's state can't be saved.
    """
    drawn, first = isinstance(data, Draws), is_first()
    if shared and not drawn:
        raise ValueError("data must be train.draws(arrays, draw) where shared=True: what an iterator gives is not known beforehand")
    if first:
        checkpoint.check_writable(folder)
    with hold(folder) if first else contextlib.nullcontext() as locked:
        facts = stage.facts(key, state, step, [data.arrays, data.draw] if drawn else [type(data).__qualname__], hooks.after)
        place = folder / "checkpoints"
        if shared:
            place = stage.shared_folder(folder.parent) / f"{folder.name}-{stage.digest(facts, state, hooks.steps)}"
        if first:
            checkpoint.check_writable(place)
            checkpoint.sweep(place, 0 if locked and not shared else 3600)
            checkpoint.sweep(folder, 0 if locked else 3600)
        with contextlib.closing(Store(folder, place, facts, save_seconds, None if drawn else data, hooks)) as store:
            yield store


class Store:
    """The checkpoints of one stage.

    Attributes:
      folder: the stage's own folder.
      place: the folder of its checkpoints.
      facts: what the stage depends on, `stage.facts`: a checkpoint with other facts is of another run.
      save_seconds: how often a running stage is saved.
      iterator: the iterator of batches whose state belongs to a checkpoint, or None.
      hooks: the run's hooks and length.
      failed: whether the last save did not succeed.
    """

    def __init__(self, folder, place, facts, save_seconds, iterator, hooks):
        self.folder, self.place, self.facts, self.save_seconds, self.iterator, self.hooks = folder, place, facts, save_seconds, iterator, hooks
        self._saved, self._clock, self._ours, self.failed = (0, 0), time.monotonic(), set(), False
        self._writer, self._pending = concurrent.futures.ThreadPoolExecutor(1, "checkpoint"), None
        self._iterator_state()

    def close(self):
        """Waits for what is being written."""
        self._writer.shutdown()

    def is_due(self):
        """Whether it is time to save; raises where the last save did not succeed. One that is still being written is not waited for."""
        if self._pending is not None and self._pending.done():
            self._wait()
        return self._pending is None and time.monotonic() - self._clock > self.save_seconds

    def save(self, state, position, wait=False):
        """Saves, unless that was done already: from a copy that is taken now, while the run goes on.

        Args:
          state: the state.
          position: where the run stands.
          wait: return when it is written.

        Raises:
          OSError: this one, or the one before, could not be written.
        """
        self._wait()
        if self._saved != position.mark() and is_first():
            kept = {"step": position.step, "calls": list(position.calls), "metrics": position.metrics(), "iterator": self._iterator_state()}
            finished = position.step == self.hooks.steps and not position.pending(self.hooks)
            manifest = {"facts": self.facts, "step": position.step, "steps": self.hooks.steps, "finished": finished}
            arrays = checkpoint.snapshot(state)
            self._pending = self._writer.submit(checkpoint.save, self.place, arrays, kept, manifest, self._ours)
            self._saved = position.mark()
        if wait:
            self._wait()
            from_first(position.mark())  # where several processes train as one, all of them wait
        self._clock = time.monotonic()

    def resume(self, state, position):
        """Puts `position` (and the iterator) where the newest checkpoint of this run stands, and gives its state, or `state` where there is none.

        A half-done run with other values, data or source is set aside with a warning, and this one starts anew.

        Raises:
          ValueError: the checkpoints are of another run that was finished, of more steps, or all damaged; or the iterator can't be put anywhere.
        """
        found = from_first(self._newest() if is_first() else None)
        return state if found is None else self._go_on(self.place / "-".join(map(str, found)), state, position)

    def _newest(self):
        """The numbers that name the checkpoint to go on from, or None."""
        path = None
        for path, manifest, damaged in checkpoint.sound(self.place):
            if self._is_other(path, manifest):
                return None
            # At the end of a run to fewer steps hooks were called that are not due there now.
            if all(number in self.hooks.due(step) for step, number in manifest["calls"]):
                for line in damaged:
                    warnings.warn(f"{line}; going on from {path.name} instead", stacklevel=4)
                return tuple(map(int, path.name.split("-")))
        if path is not None:
            raise ValueError(f"steps must be those of a run that passes {str(path)!r}, with the hooks that were called there, got {self.hooks.steps}")
        return None

    def _is_other(self, path, manifest):
        """Whether a checkpoint is of another run, which is set aside then."""
        values, source = stage.difference(self.facts, manifest["facts"]), stage.source_difference(self.facts, manifest["facts"])
        if values and manifest["finished"]:
            raise ValueError(f"folder holds a finished run of other values, {str(self.place)!r}: {values}; take another folder or name, or remove it")
        if not values and source and manifest["finished"] and manifest["step"] == self.hooks.steps:
            warnings.warn(f"{str(path)!r} was saved by another {source}, and is read as it is: remove it to start anew", stacklevel=5)
        elif values or source:
            changed = values or f"{source} changed"
            aside = stage.set_aside(self.folder)
            stood = f"{str(self.folder)!r} held a run that stood at step {manifest['step']} of {manifest['steps']}"
            warnings.warn(f"{stood} and can't be gone on from: {changed}; it is kept in {aside.name!r}, this one starts anew", stacklevel=5)
            checkpoint.check_writable(self.place)
            return True
        return False

    def _go_on(self, path, state, position):
        state, kept = checkpoint.load(path, state)
        if kept["step"] > self.hooks.steps:
            raise ValueError(f"steps must be at least {kept['step']}, which the checkpoint in {str(self.place)!r} has taken, got {self.hooks.steps}")
        if self.iterator is not None and 0 < kept["step"] < self.hooks.steps:
            if kept["iterator"] is None or not hasattr(self.iterator, "set_state"):
                missing = f"a {type(self.iterator).__name__} without them"
                raise ValueError(f"data must have get_state and set_state to go on after step {kept['step']} of {self.hooks.steps}, got {missing}")
            self.iterator.set_state(kept["iterator"])
        position.restore(kept)
        self._saved = position.mark()
        return state

    def _iterator_state(self):
        state = self.iterator.get_state() if hasattr(self.iterator, "get_state") else None
        try:
            record.pack(state)
        except TypeError as error:
            raise TypeError(f"data.get_state() must return dicts, lists and tuples of numbers, texts, bytes and arrays, got a {error}") from None
        return copy.deepcopy(state)

    def _wait(self):
        pending, self._pending = self._pending, None
        if pending is not None:
            self.failed = True
            pending.result()
            self.failed = False
