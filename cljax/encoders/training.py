"""A model applied in training: batch normalisation's running averages go along with the parameters."""

from typing import Any

from jaxtyping import PyTree


def apply_in_training(model: Any, variables: PyTree, *inputs: PyTree, **options: Any) -> tuple[Any, PyTree]:
    """`model.apply(variables, *inputs, train=True)`, and the variables with the running averages as they are then.

    An objective hands the variables on from pass to pass and returns them beside its value; a step then puts the new parameters in. Without batch
    normalisation they stay what they are.

    Args:
      model: a Linen module that takes `train`, or what has its `apply`.
      variables: `{"params": ...}`, with `"batch_stats"` where there are running averages: what `model.init` gives.
      *inputs: what the model takes.
      **options: likewise, such as `stop` of a `Chain`.

    Returns:
      `(outputs, variables)`.

    Raises:
      TypeError, ValueError: what `model.apply` raises; no `"params"` among the variables.

    >>> import jax, jax.numpy as jnp
    >>> from cljax import encoders
    >>> model, x = encoders.MLP((4,), 2, batch_norm=True), jnp.arange(6.0).reshape(3, 2)
    >>> variables = jax.jit(model.init)(jax.random.key(0), x)
    >>> def objective(params, variables):
    ...     z, variables = apply_in_training(model, variables | {"params": params}, x)
    ...     return jnp.sum(z**2), variables
    >>> grads, new = jax.grad(objective, has_aux=True)(variables["params"], variables)
    >>> jax.tree.structure(new) == jax.tree.structure(variables), bool((new["batch_stats"]["BatchNorm_0"]["mean"] != 0).any())
    (True, True)
    """
    if not isinstance(variables, dict) or "params" not in variables:
        raise ValueError(f'variables must be a dict with "params", as `init` gives it, got {type(variables).__name__}')
    outputs, changed = model.apply(variables, *inputs, train=True, mutable=[kind for kind in variables if kind != "params"], **options)
    return outputs, {**variables, **changed}
