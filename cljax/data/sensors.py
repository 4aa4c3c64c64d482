"""Windows of several sensors that record the same movements: a user's own recordings, and generated ones."""

import hashlib
import os
import pathlib
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from cljax.core import check, provenance, safe_normalize
from cljax.core.check import KeyLike
from cljax.data import copies

GAIN, GRAVITY, NOISE = (1.0, 0.9, 0.7, 0.5, 0.25), (1.0, 1.1, 1.5, 2.0, 3.0), (0.8, 0.85, 0.9, 0.95, 1.0)  # of the generated devices
_ACTIVITIES, _SAMPLES, _RATE = 6, 64, 50.0


class Movements(NamedTuple):
    """Windows of what several devices recorded at the same time.

    Attributes:
      windows: float32 `[N, D, T, C]`: N moments, D devices, T samples, C channels.
      labels: `[N]` integers, the activity.
      people: `[N]` integers, whose movement it is.
    """

    windows: Float[Array | np.ndarray, "N D T C"]
    labels: Integer[Array | np.ndarray, " N"]
    people: Integer[Array | np.ndarray, " N"]


def movements(key: KeyLike, count: int) -> Movements:
    r"""Generated movements of six activities, as five devices with three axes see them, in windows of 64 samples at 50 Hz.

    A movement is $s(t) = A (\sin(2 \pi f t + \phi) + h \sin(4 \pi f t + 2 \phi))$ with a phase for each axis and a log-normal amplitude; the activity
    decides the frequency, up to a tenth, and the harmonic. Device d sees $g_d R_d s$, turned by a rotation of its own, and gravity of length
    `GRAVITY[d]`, tilted a little in each window, a linear drift and white noise: these belong to a device and a window, and only who compares devices
    can know that they don't matter. From device 0 to 4 gain falls, gravity and noise rise: the last is of nearly no use.

    Args:
      key: a PRNG key; rotations, directions of gravity and harmonics are drawn once, the rest for each movement.
      count: N.

    Returns:
      `Movements`, in jax, with windows `[N, 5, 64, 3]` and one person.

    Raises:
      TypeError, ValueError: an argument of another kind or range.

    >>> movements(jax.random.key(0), 4).windows.shape
    (4, 5, 64, 3)
    """
    check.key("key", key)
    check.integer("count", count, at_least=1)
    return _movements(key, count)


@partial(jax.jit, static_argnums=1)
def _movements(key, count):
    k_turn, k_down, k_harmonic, k_event = jax.random.split(key, 4)
    turn = jax.random.orthogonal(k_turn, 3, (5,))
    turn *= jnp.linalg.det(turn)[:, None, None]  # rotations, no reflections
    down = jnp.array(GRAVITY)[:, None] * safe_normalize(jax.random.normal(k_down, (5, 3)))
    harmonic = jax.random.permutation(k_harmonic, jnp.linspace(0, 0.5, _ACTIVITIES))
    k = iter(jax.random.split(k_event, 8))
    activity = jax.random.randint(next(k), (count,), 0, _ACTIVITIES)
    frequency = jnp.linspace(1.5, 5, _ACTIVITIES)[activity] * (1 + 0.1 * jax.random.normal(next(k), (count,)))
    phase = jax.random.uniform(next(k), (count, 1, 3), maxval=2 * np.pi)
    angle = 2 * np.pi * frequency[:, None, None] * (jnp.arange(_SAMPLES) / _RATE)[:, None] + phase
    movement = jnp.sin(angle) + harmonic[activity][:, None, None] * jnp.sin(2 * angle)
    movement *= jnp.exp(0.3 * jax.random.normal(next(k), (count, 1, 1)))
    seen = jnp.array(GAIN)[:, None, None] * jnp.einsum("dij,ntj->ndti", turn, movement)
    axis, tilt = safe_normalize(jax.random.normal(next(k), (count, 5, 3))), 0.3 * jax.random.normal(next(k), (count, 5, 1))
    along = axis * jnp.sum(axis * down, axis=-1, keepdims=True)
    tilted = along + (down - along) * jnp.cos(tilt) + jnp.cross(axis, down) * jnp.sin(tilt)
    drift = jnp.linspace(-0.5, 0.5, _SAMPLES)[:, None] * jax.random.normal(next(k), (count, 5, 1, 3))
    noise = jnp.array(NOISE)[:, None, None] * jax.random.normal(next(k), (count, 5, _SAMPLES, 3))
    return Movements(seen + tilted[:, :, None] + drift + noise, activity, jnp.zeros(count, jnp.int32))


def recordings(folder: str | os.PathLike, *, length: int = 150) -> Movements:
    """Cuts a user's own recordings, a file a person, into windows that don't overlap.

    Each file `folder/*.npz` holds `signals`, floats `[time, devices, channels]` whose rows are aligned in time, and `labels`, integers `[time]`. A
    window has the label of its middle.

    Args:
      folder: the folder; people are numbered in the order of the files' names.
      length: T, the samples of a window.

    Returns:
      `Movements`, in numpy.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: no such file in the folder, a file without one of the two arrays, with others' shapes or shorter than a window.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder must be a path, got {type(folder).__name__}")
    check.integer("length", length, at_least=1)
    paths, found = sorted(pathlib.Path(folder).glob("*.npz")), []
    if not paths:
        raise ValueError(f"folder must hold a file a person, an .npz of signals and labels, got none in {str(folder)!r}")
    for person, path in enumerate(paths):
        with np.load(path) as file:
            if missing := {"signals", "labels"} - set(file):
                raise ValueError(f"{str(path)!r} must hold signals and labels, it lacks {min(missing)!r}")
            signals, labels = file["signals"], file["labels"]
        if signals.ndim != 3 or labels.shape != signals.shape[:1] or len(labels) < length:
            shapes = f"{list(signals.shape)} and {list(labels.shape)}"
            raise ValueError(f"{str(path)!r} must hold signals [time, devices, channels] and labels [time], {length} samples at least, got {shapes}")
        windows = np.lib.stride_tricks.sliding_window_view(signals, length, axis=0)[::length]
        middle = labels[length // 2 :: length][: len(windows)]
        found.append(Movements(np.moveaxis(windows, 3, 2).astype(np.float32), middle, np.full(len(windows), person)))
    digest = hashlib.sha256(str(provenance.digests(folder)).encode()).hexdigest()
    copies.note(folder, sum(len(person.labels) for person in found), digest)
    return Movements(*map(np.concatenate, zip(*found, strict=True)))
