"""Short real videos without labels: films, cut."""

import numpy as np
from jaxtyping import Float

from cljax.core import check
from cljax.data.loading import load


def film_videos(*, frames: int = 16, side: int = 32) -> Float[np.ndarray, "N T S S 3"]:
    """The films of the data set `films`, cut into videos one after the other; what is left at the end of a film is in none.

    The fourth film is left out: it is the third, badly compressed.

    Args:
      frames: T, of a video.
      side: S, the height and width of a frame, a divisor of 64: each pixel is the mean of a block.

    Returns:
      float32 `[N, T, S, S, 3]`, in numpy: those of each film in order.

    Raises:
      TypeError, ValueError: an argument of another kind or range; what `load` raises, where the extra `video` is not installed.
    """
    check.integer("frames", frames, at_least=1)
    check.integer("side", side, at_least=1)
    if 64 % side:
        raise ValueError(f"side must be a divisor of 64, got {side}")
    pictures, film = (np.asarray(part) for part in load("films"))
    pictures = pictures.reshape(-1, side, 64 // side, side, 64 // side, 3).mean(axis=(2, 4))
    whole = (part[: len(part) // frames * frames] for part in (pictures[film == number] for number in (0, 1, 3)))
    return np.concatenate([part.reshape(-1, frames, side, side, 3) for part in whole])
