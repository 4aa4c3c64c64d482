"""An encoder and its heads as one module."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from cljax.core import check
from cljax.core.check import KeyLike


class Chain(nn.Module):
    """Modules one after the other; each that takes `train` is given it, which `nn.Sequential` gives to its first alone.

    The parameters of module i are under `modules_i`.

    Attributes:
      modules: such as an encoder and a `ProjectionHead`.
      features: D, the width of the embeddings: that of the last module (not to be given).
      dropout: the largest share that one of them drops, 0 where none does (not to be given).

    Call:
      `apply(variables, inputs, train=False)` gives what the last module gives, `[B, D]`; with `stop=1` what the first gives, the representation
      that is used after training, and so on; with a tuple of such numbers what each of these modules gives, `stop=(1, 2)` features and logits.

    Raises:
      TypeError, ValueError: `modules` is not a sequence of modules, at least one.

    >>> import jax, jax.numpy as jnp
    >>> from cljax import encoders
    >>> model = encoders.Chain([encoders.MLP((64,), 48), encoders.ProjectionHead(48, 16)])
    >>> images = jnp.ones((5, 8, 8))
    >>> params = jax.jit(model.init)(jax.random.key(0), images)
    >>> model.apply(params, images).shape, model.apply(params, images, stop=1).shape
    ((5, 16), (5, 48))
    >>> [found.shape for found in model.apply(params, images, stop=(1, 2))]
    [(5, 48), (5, 16)]
    """

    modules: Sequence[nn.Module]

    def __post_init__(self):
        if not isinstance(self.modules, Sequence) or not self.modules:
            raise ValueError(f"modules must be a sequence of Linen modules, at least one, got {self.modules!r}")
        for module in self.modules:
            if not isinstance(module, nn.Module):
                raise TypeError(f"modules must be Linen modules, got {type(module).__name__}")
        self.modules = tuple(self.modules)
        super().__post_init__()

    @property
    def features(self) -> int:
        return self.modules[-1].features

    @property
    def dropout(self) -> float:
        return max(getattr(module, "dropout", 0.0) for module in self.modules)

    def __call__(self, inputs: Any, train: bool = False, stop: int | tuple[int, ...] | None = None) -> Float[Array, "B D"] | tuple:
        ends = [len(self.modules[:end]) for end in (stop if isinstance(stop, tuple) else (stop,))]
        found = [inputs]
        for module in self.modules[: max(ends)]:
            options = {"train": train} if "train" in inspect.signature(type(module).__call__).parameters else {}
            found.append(module(found[-1], **options))
        chosen = tuple(found[end] for end in ends)
        return chosen if isinstance(stop, tuple) else chosen[0]


def chained(*parts: PyTree) -> PyTree:
    """The variables of a `Chain` out of those of its modules: a pretrained encoder and a fresh head.

    Args:
      *parts: what `init` of each module gave, such as `{"params": ..., "batch_stats": ...}`, in their order.

    Returns:
      The variables, for the chain's `apply`.

    Raises:
      TypeError: a part is no dict.

    >>> import jax, jax.numpy as jnp
    >>> from cljax import encoders
    >>> encoder, head = encoders.MLP((64,), 48), encoders.ProjectionHead(48, 16)
    >>> variables = chained(encoder.init(jax.random.key(0), jnp.ones((1, 8))), head.init(jax.random.key(1), jnp.ones((1, 48))))
    >>> encoders.Chain([encoder, head]).apply(variables, jnp.ones((5, 8))).shape
    (5, 16)
    """
    for part in parts:
        if not isinstance(part, Mapping):
            raise TypeError(f"parts must be dicts of variables, as `init` gives them, got {type(part).__name__}")
    kinds = dict.fromkeys(kind for part in parts for kind in part)
    return {kind: {f"modules_{i}": part[kind] for i, part in enumerate(parts) if kind in part} for kind in kinds}


def with_head(key: KeyLike, encoder: nn.Module, variables: Mapping[str, PyTree], head: nn.Module) -> tuple[Chain, dict[str, PyTree]]:
    """An encoder that has learnt, and behind it a head that has not: what is fine-tuned.

    Args:
      key: a PRNG key, of the head's parameters, which are those that `Chain([encoder, head]).init` would draw.
      encoder: a Linen module whose `features` are the width of its embeddings.
      variables: its own, `{"params": ...}` and others such as running averages.
      head: a Linen module, such as `MLP((), classes)`.

    Returns:
      `(model, variables)` of `Chain([encoder, head])`.

    Raises:
      TypeError, ValueError: an argument of another kind.

    >>> import jax, jax.numpy as jnp
    >>> from cljax import encoders
    >>> encoder, images = encoders.MLP((64,), 48), jnp.ones((5, 8, 8))
    >>> learnt = encoder.init(jax.random.key(0), images)
    >>> model, variables = with_head(jax.random.key(1), encoder, learnt, encoders.MLP((), 10))
    >>> model.apply(variables, images).shape
    (5, 10)
    """
    check.key("key", key)
    model = Chain([encoder, head])
    fresh = jax.jit(Chain([_Given(), head]).init)(key, jnp.zeros((1, encoder.features)))
    return model, chained(variables, {kind: tree["modules_1"] for kind, tree in fresh.items()})


class _Given(nn.Module):
    """In place of an encoder: its embeddings are given."""

    @nn.compact
    def __call__(self, inputs):
        return inputs
