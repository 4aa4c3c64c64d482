"""What the rest of a program may ask of an encoder."""

from typing import Any, Protocol

from jaxtyping import Array, Float


class Encoder(Protocol):
    """Anything with the two pure functions of a Linen module; an experiment takes no more of flax than this.

    Attributes:
      features: D, the width of the embeddings.
    """

    features: int

    def init(self, key: Any, inputs: Any) -> Any:
        """The variables (parameters), from a key and a batch of example inputs, of which only shape and dtype matter."""

    def apply(self, variables: Any, inputs: Any) -> Float[Array, "B D"]:
        """The embeddings of a batch."""
