"""Windows of sensor signals, returned in their dtype."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, Num

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.views.per_example import per_example


def jitter(
    key: KeyLike, signals: Float[ArrayLike, "B T C"], *, index: Integer[ArrayLike, " B"] | None = None, deviation: Num[ArrayLike, ""] = 0.05
) -> Float[Array, "B T C"]:
    r"""Adds normal noise to each sample, $x + \sigma \epsilon$: the noise of a sensor.

    Args:
      key: a PRNG key.
      signals: `[B, T, C]` floats.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      deviation: sigma, in the unit of the signals.

    Returns:
      The views, in shape and dtype of `signals`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Um et al., "Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring using Convolutional Neural Networks", ICMI 2017.

    >>> import jax, jax.numpy as jnp
    >>> view = jitter(jax.random.key(0), jnp.zeros((2, 500, 3)), deviation=0.5)
    >>> bool(jnp.abs(jnp.std(view) - 0.5) < 0.05)
    True
    """
    _check(key, signals, index, deviation)
    return per_example(partial(_jitter, deviation=deviation), key, jnp.asarray(signals), index=index)


def scaling(
    key: KeyLike, signals: Float[ArrayLike, "B T C"], *, index: Integer[ArrayLike, " B"] | None = None, deviation: Num[ArrayLike, ""] = 0.1
) -> Float[Array, "B T C"]:
    r"""Multiplies each channel by a factor of its own, $x_c (1 + \sigma \epsilon_c)$ with normal $\epsilon$: the strength of a movement.

    Args:
      key: a PRNG key.
      signals: `[B, T, C]` floats.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      deviation: sigma.

    Returns:
      The views, in shape and dtype of `signals`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Um et al., "Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring using Convolutional Neural Networks", ICMI 2017.

    >>> import jax, jax.numpy as jnp
    >>> view = scaling(jax.random.key(0), jnp.ones((200, 4, 3)))
    >>> bool((view[:, 0] == view[:, 3]).all()), bool(jnp.abs(jnp.std(view) - 0.1) < 0.02)
    (True, True)
    """
    _check(key, signals, index, deviation)
    return per_example(partial(_scaling, deviation=deviation), key, jnp.asarray(signals), index=index)


def _jitter(key, signal, deviation):
    return (signal + deviation * jax.random.normal(key, signal.shape)).astype(signal.dtype)


def _scaling(key, signal, deviation):
    return (signal * (1 + deviation * jax.random.normal(key, signal.shape[1:]))).astype(signal.dtype)


def _check(key, signals, index, deviation):
    check.key("key", key)
    check.arrays(signals=(signals, "B T C"), index=(index, "B?", "int"))
    check.number("deviation", deviation, at_least=0)
