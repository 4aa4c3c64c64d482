"""One view of several."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import ArrayLike, Integer, PyTree

from cljax.core.check import KeyLike


def compose(*views: Callable[..., Any]) -> Callable[..., Any]:
    """One view that applies several, one after the other, each with a key of its own.

    Options are bound by `functools.partial`; a change of single examples of your own becomes a view by `partial(per_example, change)`. Make it
    once, at the top of a file: `train.fit` takes functions for equal only where they are the same.

    Args:
      *views: each called as `view(key, examples, index=index)`.

    Returns:
      The view `composed(key, examples, *, index=None)`; without views it changes nothing.

    Raises:
      TypeError: one of `views` is not callable.

    >>> import jax, jax.numpy as jnp
    >>> from functools import partial
    >>> from cljax import views
    >>> simclr = views.compose(
    ...     partial(views.random_resized_crop, size=32),
    ...     views.flip,
    ...     partial(views.colour_jitter, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
    ...     views.greyscale,
    ...     views.gaussian_blur,
    ... )
    >>> simclr(jax.random.key(0), jnp.ones((2, 40, 40, 3)), index=jnp.array([17, 4])).shape
    (2, 32, 32, 3)
    """
    for view in views:
        if not callable(view):
            raise TypeError(f"views must be functions view(key, examples, *, index), got {type(view).__name__}")

    def composed(key: KeyLike, examples: PyTree, *, index: Integer[ArrayLike, " B"] | None = None) -> Any:
        for i, view in enumerate(views):
            examples = view(jax.random.fold_in(key, i), examples, index=index)
        return examples

    return composed
