"""Checks of a public function's arguments: the error names the argument, what was given and what is accepted.

Shapes, dtypes and Python values are known at trace time, so a mistake fails before anything is computed. A *value* of an array is looked at
only where it is concrete (`positive`): under a transformation nothing can be said of it.
"""

import difflib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Key, UInt32

KeyLike = Key[Array, ""] | UInt32[ArrayLike, "_"]  # typed, or of the older kind
_KINDS = {"float": (jnp.floating,), "int": (jnp.integer,), "bool": (jnp.bool_,), "number": (jnp.integer, jnp.floating)}


def arrays(**arguments):
    """Checks the ranks, the dtypes and the agreeing sizes of several arrays at once.

    Args:
      **arguments: `name=(value, spec, kind)` or `name=(value, spec)`. `spec` names the axes, `"B D"`: an axis with the same name has the same size in
        all arguments, a number is that size, a leading `...` is any number of axes; with a `?` at its end the value may be None, and is passed over.
        `kind` is `"float"` (the default), `"int"`, `"bool"`, `"number"` (a float or an integer) or None for any dtype.

    Returns:
      The sizes by axis name, `{"B": 32, "D": 128}`.

    Raises:
      TypeError: a value is not an array, or its dtype is of another kind.
      ValueError: a wrong rank, or a size that disagrees with another argument's.
    """
    sizes, owners = {}, {}
    for name, (value, spec, *kind) in arguments.items():
        if value is None and spec.endswith("?"):
            continue
        spec = spec.removesuffix("?")
        kind = kind[0] if kind else "float"
        if not isinstance(value, (jax.Array, np.ndarray, np.generic, int, float, bool)):
            raise TypeError(f"{name} must be an array, got {_describe(value)}")
        shape, dtype = np.shape(value), jnp.result_type(value)
        if kind is not None and not _is(dtype, kind):
            raise TypeError(f"{name} must have dtype {kind}, got {dtype}")
        axes = spec.split()
        leading = bool(axes) and axes[0] == "..."
        axes = axes[leading:]
        wanted = f"[{', '.join((['...'] if leading else []) + axes)}]"
        if len(shape) < len(axes) or (len(shape) > len(axes) and not leading):
            raise ValueError(f"{name} must have shape {wanted}, got {list(shape)}")
        for axis, size in zip(axes, shape[len(shape) - len(axes) :], strict=True):
            if axis.isdigit():
                if size != int(axis):
                    raise ValueError(f"{name} must have shape {wanted}, got {list(shape)}")
            elif sizes.setdefault(axis, size) != size:
                raise ValueError(f"{name} must have shape {wanted} with {axis} = {sizes[axis]} as in {owners[axis]}, got {list(shape)}")
            owners.setdefault(axis, name)
    return sizes


def choice(name, value, accepted):
    """Raises ValueError unless `value` is one of `accepted`; a name that is nearly right is pointed out."""
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}{nearest(value, accepted)}")


def nearest(value, accepted):
    """The end of an error message: `; did you mean 'x'?`, or nothing where no accepted name is near."""
    close = difflib.get_close_matches(str(value), [str(name) for name in accepted], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def integer(name, value, at_least=None, at_most=None):
    """Raises TypeError unless `value` is a Python (or numpy) integer, ValueError unless it lies in [at_least, at_most]."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {_describe(value)}")
    _within(name, value, at_least, at_most)


def number(name, value, at_least=None, at_most=None, several=False):
    """Raises TypeError unless `value` is a real number, ValueError where it is concrete and outside [at_least, at_most]; `several`: or an array."""
    _concrete(name, value, several)
    if not isinstance(value, jax.core.Tracer):
        for bound in np.asarray(value).ravel():
            _within(name, bound, at_least, at_most)


def positive(name, value, several=False):
    """Raises TypeError unless `value` is a real number, ValueError where it is concrete and not above 0; `several`: or an array, everywhere."""
    _concrete(name, value, several)
    if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) > 0):
        given = float(value) if np.ndim(value) == 0 else f"a minimum of {np.min(value)}"
        raise ValueError(f"{name} must be greater than 0, got {given}")


def key(name, value):
    """Raises TypeError unless `value` is one PRNG key, typed or of the older uint32 kind; ValueError where it is several."""
    typed = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    if not typed and getattr(value, "dtype", None) != jnp.uint32:
        raise TypeError(f"{name} must be a PRNG key, as jax.random.key(0) makes, got {_describe(value)}")
    if np.ndim(value) != (0 if typed else 1):
        raise ValueError(f"{name} must be one PRNG key, got an array of shape {list(np.shape(value))}; map over several with jax.vmap")


def axis(name, value):
    """Raises ValueError where `value` is a mesh axis that is not mapped here; None is accepted."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string or None, got {_describe(value)}")
    try:
        lax.axis_size(value)
    except NameError:
        raise ValueError(f"{name}={value!r} is not mapped here: call inside jax.shard_map, jax.pmap or jax.vmap(axis_name={value!r})") from None


def installed(module, extra):
    """Raises ImportError with the install line unless `module`, which the extra `cljax[extra]` brings, can be imported."""
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{module} is not installed; install it with: pip install 'cljax[{extra}]'")


def broadcasts(given, shape):
    """Whether an array of shape `given` broadcasts to `shape`."""
    return len(given) <= len(shape) and all(size in (1, whole) for size, whole in zip(given[::-1], shape[::-1], strict=False))


def _is(dtype, kind):
    return any(jnp.issubdtype(dtype, accepted) for accepted in _KINDS[kind])


def _describe(value):
    return f"{value!r} ({type(value).__name__})" if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__


def _concrete(name, value, several):
    if isinstance(value, (bool, np.bool_, str)) or not isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)):
        raise TypeError(f"{name} must be a number, got {_describe(value)}")
    if not _is(jnp.result_type(value), "number"):
        raise TypeError(f"{name} must be a number, got dtype {jnp.result_type(value)}")
    if not several and np.ndim(value):
        raise ValueError(f"{name} must have shape [], got {list(np.shape(value))}")


def _within(name, value, at_least, at_most):
    if (at_least is not None and not value >= at_least) or (at_most is not None and not value <= at_most):
        bounds = [f"at least {at_least}"] * (at_least is not None) + [f"at most {at_most}"] * (at_most is not None)
        raise ValueError(f"{name} must be {' and '.join(bounds)}, got {value}")
