"""Which of two generations is the better one: losses on log-probabilities of sequences, and on scores.

A pair whose two generations are one and the same has no gradient in effect: what reaches the one is taken back from the other.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from cljax.core import check
from cljax.losses._pairs import Scalar, Where, drop, float_array


def dpo(
    chosen: Float[ArrayLike, " B"],
    rejected: Float[ArrayLike, " B"],
    reference_chosen: Float[ArrayLike, " B"],
    reference_rejected: Float[ArrayLike, " B"],
    *,
    beta: Scalar,
    where: Where = None,
) -> Float[Array, " B"]:
    r"""Direct preference optimisation: a policy that is its own reward model, $-\log \sigma(\beta (\rho_w - \rho_l))$.

    $\rho = \log \pi(y | x) - \log \pi_{\text{ref}}(y | x)$ of the generation that was chosen (w) and of the one that was rejected (l). Where they are
    chosen with probability $\sigma(r_w - r_l)$ the best policy is $\pi_{\text{ref}} \exp(r / \beta) / Z$; where always the same one is, there is
    none.

    Args:
      chosen: `[B]`, the policy's log-probabilities of the better generations, as of `sequence_logprob`.
      rejected: `[B]`, of the worse ones.
      reference_chosen: `[B]`, the reference's of the better ones.
      reference_rejected: `[B]`, of the worse ones.
      beta: how dear it is to leave the reference; above 0.
      where: `[B]` booleans, the pairs that count: pairs without a better one, say, do not.

    Returns:
      float32 `[B]`, not below 0; log 2 where the policy is the reference, 0 where a pair doesn't count.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a beta that is not positive.

    Reference: Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a Reward Model", NeurIPS 2023, equation 7.

    >>> print(f"{dpo(jnp.array([-4.0]), jnp.array([-5.0]), jnp.array([-4.5]), jnp.array([-4.5]), beta=1.0)[0]:.4f}")
    0.3133
    """
    margin = _margin(chosen, rejected, reference_chosen, reference_rejected, beta, where)
    return drop(where, -jax.nn.log_sigmoid(beta * margin))


def ipo(
    chosen: Float[ArrayLike, " B"],
    rejected: Float[ArrayLike, " B"],
    reference_chosen: Float[ArrayLike, " B"],
    reference_rejected: Float[ArrayLike, " B"],
    *,
    beta: Scalar,
    where: Where = None,
) -> Float[Array, " B"]:
    r"""Identity preference optimisation: the log-ratios of a pair are to differ by just so much, $(\rho_w - \rho_l - 1 / (2 \beta))^2$.

    As `dpo`, with a target that can be reached. Half of beta times its gradient is that of `copg` with rewards 1/4 and -1/4; the CoPG paper writes it
    $(1/2 - \beta (\rho_w - \rho_l))^2$, which is $\beta^2$ times this.

    Args:
      chosen, rejected, reference_chosen, reference_rejected, beta, where: as in `dpo`.

    Returns:
      float32 `[B]`, not below 0; $1 / (4 \beta^2)$ where the policy is the reference, 0 where a pair doesn't count.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a beta that is not positive.

    Reference: Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences", AISTATS 2024, equation 17.

    >>> print(ipo(jnp.array([-4.0]), jnp.array([-5.0]), jnp.array([-4.5]), jnp.array([-4.5]), beta=0.25).round(4))
    [1.]
    """
    margin = _margin(chosen, rejected, reference_chosen, reference_rejected, beta, where)
    return drop(where, jnp.square(margin - 0.5 / float_array(beta)))


def bradley_terry(chosen: Float[ArrayLike, " B"], rejected: Float[ArrayLike, " B"], *, where: Where = None) -> Float[Array, " B"]:
    r"""A reward model's loss, $-\log \sigma(r_w - r_l)$: it is to score the chosen one of two higher.

    Args:
      chosen: `[B]`, the scores of the better ones.
      rejected: `[B]`, of the worse ones.
      where: `[B]` booleans, the pairs that count.

    Returns:
      float32 `[B]`, not below 0; 0 where a pair doesn't count.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree.

    Reference: Bradley & Terry, "Rank Analysis of Incomplete Block Designs: I. The Method of Paired Comparisons", Biometrika 1952; Ouyang et al.,
    "Training Language Models to Follow Instructions with Human Feedback", NeurIPS 2022, equation 1.

    >>> print(bradley_terry(jnp.array([2.0, 0.0]), jnp.array([0.0, 0.0])).round(4))
    [0.1269 0.6931]
    """
    check.arrays(chosen=(chosen, "B"), rejected=(rejected, "B"), where=(where, "B?", "bool"))
    chosen, rejected = (drop(where, float_array(scores)) for scores in (chosen, rejected))
    return drop(where, -jax.nn.log_sigmoid(chosen - rejected))


def _margin(chosen, rejected, reference_chosen, reference_rejected, beta, where):
    """The difference of the log-ratios; no gradient goes to the reference."""
    check.positive("beta", beta)
    of_reference = dict(reference_chosen=(reference_chosen, "B"), reference_rejected=(reference_rejected, "B"))
    check.arrays(chosen=(chosen, "B"), rejected=(rejected, "B"), **of_reference, where=(where, "B?", "bool"), beta=(beta, "", "number"))
    chosen, rejected, *reference = (drop(where, float_array(x)) for x in (chosen, rejected, reference_chosen, reference_rejected))
    reference_chosen, reference_rejected = map(jax.lax.stop_gradient, reference)
    return (chosen - rejected) - (reference_chosen - reference_rejected)
