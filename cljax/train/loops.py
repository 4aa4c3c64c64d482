"""Whether a piece of work is worth a compiled loop."""

from cljax.core import compat


def slow_in_a_loop(trace, platform=None):
    """Whether a program would be much slower inside a loop: then such steps are called one at a time, and such chunks are written out.

    XLA:CPU makes the gradient of a convolution inside a loop some 40 times slower (jax issue 12868).

    Args:
      trace: a function that gives the program as `jax.make_jaxpr` does; it is called only where that matters.
      platform: where it will run, `"cpu"`; None is where a new array would lie.
    """
    return (platform or compat.platform()) == "cpu" and has_convolution(trace())


def has_convolution(jaxpr):
    """Whether a traced program holds a convolution, at any depth."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    if not hasattr(jaxpr, "eqns"):
        return False
    inner = [value for eqn in jaxpr.eqns for entry in eqn.params.values() for value in (entry if isinstance(entry, (tuple, list)) else (entry,))]
    return any(eqn.primitive.name == "conv_general_dilated" for eqn in jaxpr.eqns) or any(map(has_convolution, inner))
