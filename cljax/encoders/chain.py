"""An encoder and its heads as one module."""

import inspect
from collections.abc import Sequence
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float


class Chain(nn.Module):
    """Modules one after the other; each that takes `train` is given it, which `nn.Sequential` gives to its first alone.

    The parameters of module i are under `modules_i`.

    Attributes:
      modules: such as an encoder and a `ProjectionHead`.
      features: D, the width of the embeddings: that of the last module (not to be given).
      dropout: the largest share that one of them drops, 0 where none does (not to be given).

    Call:
      `apply(variables, inputs, train=False)` gives what the last module gives, `[B, D]`; with `stop=1` what the first gives, the representation
      that is used after training, and so on.

    Raises:
      TypeError, ValueError: `modules` is not a sequence of modules, at least one.

    >>> import jax, jax.numpy as jnp
    >>> from cljax import encoders
    >>> model = encoders.Chain([encoders.MLP((64,), 48), encoders.ProjectionHead(48, 16)])
    >>> images = jnp.ones((5, 8, 8))
    >>> params = jax.jit(model.init)(jax.random.key(0), images)
    >>> model.apply(params, images).shape, model.apply(params, images, stop=1).shape
    ((5, 16), (5, 48))
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

    def __call__(self, inputs: Any, train: bool = False, stop: int | None = None) -> Float[Array, "B D"]:
        for module in self.modules[:stop]:
            options = {"train": train} if "train" in inspect.signature(type(module).__call__).parameters else {}
            inputs = module(inputs, **options)
        return inputs
