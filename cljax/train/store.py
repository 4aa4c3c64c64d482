"""Where a stage's checkpoints lie, and how a run finds its way back to the newest."""

import time
import warnings

from cljax.train import checkpoint, stage
from cljax.train.draws import Draws


def open_store(folder, shared, save_seconds, key, state, step, data, hooks):
    """The store of the stage that `fit` is called for; its own things go to `folder`, the checkpoints of a shared one to where other cells find them.

    Raises:
      ValueError: nothing can be written there, or a shared stage gets its batches from an iterator, of which nothing can be known beforehand.
    """
    checkpoint.check_writable(folder)
    drawn = isinstance(data, Draws)
    facts = stage.facts(key, state, step, [data.arrays, data.draw] if drawn else [type(data).__qualname__], hooks.after)
    place = folder / "checkpoints"
    if shared:
        if not drawn:
            raise ValueError("data must be train.draws(arrays, draw) where shared=True: what an iterator gives is not known beforehand")
        place = stage.shared_folder(folder.parent) / f"{folder.name}-{stage.digest(facts, state, hooks.steps)}"
        checkpoint.check_writable(place)
    return Store(place, facts, save_seconds, None if drawn else data)


class Store:
    """The checkpoints of one stage in a folder.

    Attributes:
      place: the folder.
      facts: what the stage depends on, `stage.facts`: a checkpoint with other facts is of another run.
      save_seconds: how often a running stage is saved.
      iterator: the iterator of batches whose state belongs to a checkpoint, or None.
    """

    def __init__(self, place, facts, save_seconds, iterator):
        self.place, self.facts, self.save_seconds, self.iterator = place, facts, save_seconds, iterator
        self._saved, self._clock = (0, 0), time.monotonic()

    def is_due(self):
        """Whether it is time to save."""
        return time.monotonic() - self._clock > self.save_seconds

    def save(self, state, position):
        """Saves, unless that was done already."""
        if self._saved != position.mark():
            iterator = self.iterator.get_state() if hasattr(self.iterator, "get_state") else None
            kept = {"step": position.step, "calls": position.calls, "metrics": position.metrics(), "iterator": iterator}
            checkpoint.save(self.place, state, kept, self.facts)
            self._saved = position.mark()
        self._clock = time.monotonic()

    def resume(self, state, position, hooks):
        """Puts `position` (and the iterator) where the newest checkpoint of this run stands, and gives its state, or `state` where there is none.

        Raises:
          ValueError: the checkpoints are of another run, of more steps, or all damaged; or the iterator can't be put anywhere.
        """

        def is_on_the_way(manifest):
            problem = stage.difference(self.facts, manifest["facts"])
            if problem is not None:
                place = f"folder holds a checkpoint of another run, {str(self.place)!r}"
                raise ValueError(f"{place}: {problem}; take another folder or name, or remove it")
            # At the end of a run to fewer steps hooks were called that are not due there now.
            return all(number in hooks.due(step) for step, number in manifest["calls"])

        found = checkpoint.find(self.place, is_on_the_way)
        if found is None:
            return state
        path, manifest = found
        if manifest["facts"].get(stage.CODE) != self.facts[stage.CODE]:
            warnings.warn(f"{str(path)!r} was saved by other code of the step, the draw or a hook: remove it to start anew", stacklevel=4)
        state, kept = checkpoint.load(path, state)
        if kept["step"] > hooks.steps:
            raise ValueError(f"steps must be at least {kept['step']}, which the checkpoint in {str(self.place)!r} has taken, got {hooks.steps}")
        if self.iterator is not None and 0 < kept["step"] < hooks.steps:
            if kept["iterator"] is None or not hasattr(self.iterator, "set_state"):
                missing = f"a {type(self.iterator).__name__} without them"
                raise ValueError(f"data must have get_state and set_state to go on after step {kept['step']} of {hooks.steps}, got {missing}")
            self.iterator.set_state(kept["iterator"])
        position.restore(kept)
        self._saved = position.mark()
        return state
