"""What a policy is worth, and how noisy an estimate of its gradient is."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num, PyTree

from cljax.core import check


def kl_regularised_value(
    policy: Float[ArrayLike, "*batch A"], reference: Float[ArrayLike, "*batch A"], rewards: Float[ArrayLike, "*batch A"], *, beta: Num[ArrayLike, ""]
) -> Float[Array, "*batch"]:
    r"""The reward that a policy gets, less what it costs to leave the reference: $E_\pi[r] - \beta\, \text{KL}(\pi, \pi_{\text{ref}})$.

    Args:
      policy: `[..., A]` logits of A actions; probabilities p are given as `jnp.log(p)`.
      reference: `[..., A]`, the reference's logits.
      rewards: `[..., A]`, the reward of each action.
      beta: not below 0.

    Returns:
      float32 `[...]`; minus infinity where the policy does what the reference never does.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: Flet-Berliac et al., "Contrastive Policy Gradient", EMNLP 2024.

    >>> best = kl_regularised_value(jnp.array([5.0, 4.0, 2.0]), jnp.zeros(3), jnp.array([2.5, 2.0, 1.0]), beta=0.5)
    >>> print(f"{best:.4f}")
    2.1252
    """
    log_p, log_q, rewards = _checked(policy, reference, rewards, beta)
    p = jnp.exp(log_p)
    ratio = jnp.where(p == 0, 0, log_p - log_q)
    # An infinity of what is never done counts nothing; a NaN stays.
    return jnp.sum(jnp.where(p == 0, 0, p * (rewards - jnp.asarray(beta, p.dtype) * ratio)), axis=-1)


def regret(
    policy: Float[ArrayLike, "*batch A"], reference: Float[ArrayLike, "*batch A"], rewards: Float[ArrayLike, "*batch A"], *, beta: Num[ArrayLike, ""]
) -> Float[Array, "*batch"]:
    r"""How far a policy is below the best one, $\pi^* \propto \pi_{\text{ref}} \exp(r / \beta)$: of its value $\beta \log \sum_a \pi_{\text{ref}}(a)
    \exp(r_a / \beta)$ less `kl_regularised_value`, which is $\beta\, \text{KL}(\pi, \pi^*)$.

    Args:
      policy, reference, rewards: as in `kl_regularised_value`.
      beta: above 0.

    Returns:
      float32 `[...]`, not below 0 but by rounding.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: Flet-Berliac et al., "Contrastive Policy Gradient", EMNLP 2024, section 5.

    >>> print(f"{regret(jnp.zeros(3), jnp.zeros(3), jnp.array([2.5, 2.0, 1.0]), beta=0.5):.4f}")
    0.2919
    """
    check.positive("beta", beta)
    log_p, log_q, rewards = _checked(policy, reference, rewards, beta)
    best = jax.nn.log_softmax(log_q + rewards / jnp.asarray(beta, log_p.dtype))
    p = jnp.exp(log_p)
    return jnp.asarray(beta, p.dtype) * jnp.sum(jnp.where(p == 0, 0, p * (log_p - best)), axis=-1)


def grad_variance(gradients: PyTree, mean: PyTree | None = None) -> Float[Array, ""]:
    r"""The noise of an estimated gradient: the sum over all parameters of its variance, $E \lVert g - E g \rVert^2$.

    Args:
      gradients: a tree of floats `[S, ...]`, S estimates of one gradient. mean: a tree of the shapes without the first axis: the true gradient, from
        which the squared distance is averaged. None: the mean of the estimates, with S - 1 in the denominator.

    Returns:
      A float32 scalar.

    Raises:
      TypeError, ValueError: leaves of other kinds or shapes, trees of different structure, fewer than two estimates where there is no `mean`.

    >>> estimates = {"w": jnp.array([[1.0, 0.0], [3.0, 0.0]]), "b": jnp.array([1.0, -1.0])}
    >>> print(grad_variance(estimates), grad_variance(estimates, {"w": jnp.array([2.0, 1.0]), "b": jnp.zeros(())}))
    4.0 3.0
    """
    leaves = jax.tree.leaves(gradients)
    if not leaves:
        raise ValueError("gradients must hold one array at least")
    for leaf in leaves:
        check.arrays(gradients=(leaf, "..."))
    sizes = list(map(jnp.shape, leaves))
    count = sizes[0][0] if sizes[0] else 0
    if any(size[:1] != (count,) for size in sizes):
        raise ValueError(f"gradients must have the same leading axis, got {list(map(list, sizes))}")
    check.integer("the number of estimates", count, at_least=1 if mean is not None else 2)
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32)), gradients)
    if mean is None:
        mean, count = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), wide), count - 1
    elif jax.tree.structure(mean) != jax.tree.structure(gradients):
        raise ValueError(f"mean must have the structure of gradients, {jax.tree.structure(gradients)}, got {jax.tree.structure(mean)}")
    shapes = [list(jnp.shape(leaf)) for leaf in jax.tree.leaves(mean)]
    if shapes != [list(size[1:]) for size in sizes]:
        raise ValueError(f"mean must have the shapes of gradients without the first axis, {[list(size[1:]) for size in sizes]}, got {shapes}")
    return sum(jax.tree.leaves(jax.tree.map(lambda leaf, true: jnp.sum(jnp.square(leaf - true)), wide, mean))) / count


def _checked(policy, reference, rewards, beta):
    """Log-probabilities of both and the rewards, in float32 at least."""
    check.arrays(policy=(policy, "... A"), reference=(reference, "... A"), rewards=(rewards, "... A"), beta=(beta, "", "number"))
    check.number("beta", beta, at_least=0)
    for name, value in (("reference", reference), ("rewards", rewards)):
        if jnp.shape(value) != jnp.shape(policy):
            raise ValueError(f"{name} must have the shape of policy, {list(jnp.shape(policy))}, got {list(jnp.shape(value))}")
    policy, reference, rewards = (jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32)) for x in (policy, reference, rewards))
    return jax.nn.log_softmax(policy), jax.nn.log_softmax(reference), rewards
