r"""Policies that learn from rewards: losses on log-probabilities of what they did, and the coefficients that weigh them.

Coefficients and advantages have no gradient. A gradient of a policy is that of `losses.mean(losses.reinforce(log_probs, coefficients),
axis_name=...)`: coefficients are scaled for that mean over all devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from cljax.core import check
from cljax.losses import _pairs
from cljax.losses._pairs import Scalar, Where, drop, float_array


class TriceCoefficients(NamedTuple):
    """The weights of log-probabilities in TRICE's gradient, see `trice_coefficients`.

    Attributes:
      kept: float32 `[M]`, of the rationales in memory after the step.
      proposed: float32 `[M]`, of the proposals, not above 0; 0 where the proposal is what memory now holds.
    """

    kept: Float[Array, " M"]
    proposed: Float[Array, " M"]


def copg(
    first: Float[ArrayLike, " B"],
    second: Float[ArrayLike, " B"],
    reference_first: Float[ArrayLike, " B"],
    reference_second: Float[ArrayLike, " B"],
    reward_first: Float[ArrayLike, " B"],
    reward_second: Float[ArrayLike, " B"],
    *,
    beta: Scalar,
    where: Where = None,
) -> Float[Array, " B"]:
    r"""Contrastive policy gradient, of two generations each with a reward: minimised, it leads to the best policy wherever they were drawn from.

    $$-\left[(r - r') - \tfrac{\beta}{2} (\rho - \rho')\right] (\rho - \rho'), \qquad \rho = \log \pi(y | x) - \log \pi_{\text{ref}}(y | x)$$

    Its minimum, over pairs from any two distributions of the reference's support, is $\pi^* \propto \pi_{\text{ref}} \exp(r / \beta)$, which
    maximises $E_\pi[r] - \beta\, \text{KL}(\pi, \pi_{\text{ref}})$. It is differentiated as it is, the regularised reward $R_{\beta/2} = r -
    \frac\beta2 \rho$ too: that makes the derivative by $\log \pi(y)$ minus $R_\beta(y) - R_\beta(y')$. The same gradient have `reinforce` with
    `leave_one_out(rewards - beta * (log_probs - reference))` of the two, and the square $(R_\beta(y) - R_\beta(y'))^2 / (2 \beta)$, whose value is
    this plus $(r - r')^2 / (2 \beta)$. Which generation is first does not matter, nor does a constant in the rewards of a pair.

    Args:
      first: `[B]`, the policy's log-probability of one generation, summed over its tokens, as of `sequence_logprob`.
      second: `[B]`, of the other one.
      reference_first, reference_second: `[B]`, the reference's, which get no gradient.
      reward_first, reward_second: `[B]`, the rewards.
      beta: how dear it is to leave the reference; not below 0.
      where: `[B]` booleans, the pairs that count: of any other the value is 0, whatever it holds (a reward that is missing).

    Returns:
      float32 `[B]`, not below $-(r - r')^2 / (2 \beta)$; 0 where the policy is the reference, where both generations are one and the same, and where
      a pair doesn't count.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a beta below 0.

    Reference: Flet-Berliac et al., "Contrastive Policy Gradient: Aligning LLMs on Sequence-Level Scores in a Supervised-Friendly Fashion", EMNLP
    2024; there it is an objective to be maximised.

    >>> pair = dict(first=-10.0, second=-12.0, reference_first=-11.0, reference_second=-11.5, reward_first=0.8, reward_second=-0.3)
    >>> print(f"{copg(**{name: jnp.array([value]) for name, value in pair.items()}, beta=0.1)[0]:.4f}")
    -1.5375
    """
    check.number("beta", beta, at_least=0)
    named = dict(first=first, second=second, reference_first=reference_first, reference_second=reference_second)
    named |= dict(reward_first=reward_first, reward_second=reward_second)
    check.arrays(**{name: (value, "B") for name, value in named.items()}, where=(where, "B?", "bool"), beta=(beta, "", "number"))
    first, second, *given = (drop(where, float_array(value)) for value in named.values())
    reference_first, reference_second, reward_first, reward_second = map(lax.stop_gradient, given)
    ratio = (first - second) - (reference_first - reference_second)
    return -(reward_first - reward_second - beta / 2 * ratio) * ratio


def copg_group(
    log_probs: Float[ArrayLike, "B K"],
    reference: Float[ArrayLike, "B K"],
    rewards: Float[ArrayLike, "B K"],
    *,
    beta: Scalar,
    where: Bool[ArrayLike, "B K"] | None = None,
) -> Float[Array, " B"]:
    r"""Contrastive policy gradient of several generations a prompt, all pairs in the form of squares.

    $$\frac{1}{k - 1} \sum_{i > j} \left(R_\beta(y_i) - R_\beta(y_j)\right)^2, \qquad R_\beta(y) = r - \beta (\log \pi(y) - \log
    \pi_{\text{ref}}(y))$$

    That is k times the unbiased variance of $R_\beta$ in the group. Its derivative by $\log \pi(y_i)$ is $-2 \beta$ times the leave-one-out advantage
    $R_\beta(y_i) - \operatorname{mean}_{j \ne i} R_\beta(y_j)$: of the scale of the policy gradient once divided by $2 \beta$. With two generations
    it is $2 \beta$ `copg` plus $(r - r')^2$.

    Args:
      log_probs: `[B, K]`, the policy's of K generations a prompt.
      reference: `[B, K]`, the reference's, which get no gradient.
      rewards: `[B, K]`.
      beta: how dear it is to leave the reference; not below 0, where it has no gradient.
      where: `[B, K]` booleans, the generations that exist.

    Returns:
      float32 `[B]`, not below 0; 0 where fewer than two generations exist.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, fewer than two generations, a beta below 0.

    Reference: Flet-Berliac et al., "Contrastive Policy Gradient", EMNLP 2024, for two; for more Cohere, "Command A: An Enterprise-Ready Large
    Language Model", 2025.

    >>> rewards, reference = jnp.array([[1.0, 0.0, 0.5, -1.0]]), jnp.array([[-5.5, -5.5, -5.0, -6.0]])
    >>> print(copg_group(jnp.array([[-5.0, -6.0, -4.5, -7.0]]), reference, rewards, beta=0.2).round(4))
    [2.04]
    """
    check.number("beta", beta, at_least=0)
    named = dict(log_probs=log_probs, reference=reference, rewards=rewards)
    check.arrays(**{name: (value, "B K") for name, value in named.items()}, where=(where, "B K?", "bool"), beta=(beta, "", "number"))
    check.integer("the number of generations", jnp.shape(rewards)[1], at_least=2)
    log_probs, reference, rewards = (_kept(where, value) for value in named.values())
    regularised = lax.stop_gradient(rewards) - beta * (log_probs - lax.stop_gradient(reference))
    centred, scale = _centred(regularised, where)
    return scale[:, 0] * jnp.sum(jnp.square(centred), axis=1)


def reinforce(
    log_probs: Float[ArrayLike, "*batch"], advantages: Float[ArrayLike, "*batch"], *, where: Bool[ArrayLike, "*batch"] | None = None
) -> Float[Array, "*batch"]:
    r"""The policy gradient as a loss, $-A \log \pi(y | x)$, with advantages that are constants.

    Unbiased where the policy itself drew y, with any baseline that does not depend on y. Elsewhere the gradient of $\log \pi$ has a mean of its own,
    and
    a baseline decides where it leads: see `copg`.

    Args:
      log_probs: floats of any shape, the policy's.
      advantages: of the same shape: rewards less a baseline, as of `leave_one_out`, or coefficients. They get no gradient.
      where: booleans of the same shape, the samples that count.

    Returns:
      float32 of the same shape; 0 where a sample doesn't count.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree.

    Reference: Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", Machine Learning 1992.

    >>> print(reinforce(jnp.array([-1.0, -2.0]), jnp.array([0.5, -0.5])))
    [ 0.5 -1. ]
    """
    check.arrays(log_probs=(log_probs, "..."), advantages=(advantages, "..."), where=(where, "...?", "bool"))
    for name, value in (("advantages", advantages), ("where", where)):
        if value is not None and jnp.shape(value) != jnp.shape(log_probs):
            raise ValueError(f"{name} must have the shape of log_probs, {list(jnp.shape(log_probs))}, got {list(jnp.shape(value))}")
    return -lax.stop_gradient(_kept(where, advantages)) * _kept(where, log_probs)


def leave_one_out(rewards: Float[ArrayLike, "B K"], *, where: Bool[ArrayLike, "B K"] | None = None) -> Float[Array, "B K"]:
    r"""Advantages whose baseline is the other samples of the same prompt, $r_i - \operatorname{mean}_{j \ne i} r_j$ (RLOO).

    Args:
      rewards: `[B, K]` of K samples a prompt.
      where: `[B, K]` booleans, the samples that exist.

    Returns:
      float32 `[B, K]`, of sum 0 in each row; 0 where a sample doesn't exist or is alone. No gradient passes.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, fewer than two samples.

    Reference: Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline for Free!", 2019; Ahmadian et al., "Back to Basics: Revisiting REINFORCE Style
    Optimization for Learning from Human Feedback in LLMs", ACL 2024.

    >>> print(leave_one_out(jnp.array([[1.0, 0.0, 0.5]])).round(4))
    [[ 0.75 -0.75  0.  ]]
    """
    sizes = check.arrays(rewards=(rewards, "B K"), where=(where, "B K?", "bool"))
    check.integer("the number of samples", sizes["K"], at_least=2)
    centred, scale = _centred(_kept(where, lax.stop_gradient(rewards)), where)
    return scale * centred


def trice_coefficients(proposed: Bool[ArrayLike, " M"], kept: Bool[ArrayLike, " M"], *, axis_name: str | None = None) -> TriceCoefficients:
    r"""The weights of TRICE's estimate of the gradient of $\log p(y | x)$, the probability that a model's own rationale z leads to the right answer.

    $$g = \frac{1}{\sum_m c'_m} \sum_m c'_m \left[\nabla \log p(z'_m | x_m) - \beta_m \nabla \log p(\tilde z_m | x_m)\right], \qquad
    \beta_m = \frac{\sum_{j \ne m} c'_j \tilde c_j}{\sum_{j \ne m} c'_j}$$

    $z'$ is what memory holds after the step (`samplers.independence_step`), $\tilde z$ the model's proposals, whose gradients are 0 on average: a
    control variate. $\beta_m$, how often the proposals of the others are right, does not depend on $\tilde z_m$, so g stays unbiased. As the model
    learns, $z'$ is the proposal, $\beta$ nears 1 and the noise goes to 0. Without the control variate the weights are `rejection_coefficients(kept)`.

    Args:
      proposed: `[M]` booleans, whether the proposal is right. kept: `[M]` booleans, whether what memory holds after the step is: true where the
        proposal is right. An example for which it is false, also a row that is only padding, has no weight.
      axis_name: the mapped axis over which the examples are split, or None.

    Returns:
      `TriceCoefficients`, to be averaged over the batch: $g = \operatorname{mean}_m (a_m \nabla \log p(z'_m) + b_m \nabla \log p(\tilde z_m))$, so
      they are M times those of the sum above. Equal terms are merged: where the proposal is right, $z' = \tilde z$ has the weight $1 - \beta_m$.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, an axis that is not mapped.

    Reference: Phan et al., "Training Chain-of-Thought via Latent-Variable Inference" (TRICE), NeurIPS 2023.

    >>> found = trice_coefficients(jnp.array([True, False, False]), jnp.array([True, True, False]))
    >>> (found.kept / 3).tolist(), (found.proposed / 3).tolist()
    ([0.5, 0.5, 0.0], [0.0, -0.5, 0.0])
    """
    size = check.arrays(proposed=(proposed, "M", "bool"), kept=(kept, "M", "bool"))["M"]
    check.axis("axis_name", axis_name)
    weight = jnp.asarray(kept).astype(jnp.float32)
    right = weight * jnp.asarray(proposed)
    others = _pairs.total(weight, axis_name) - weight
    beta = (_pairs.total(right, axis_name) - right) / jnp.maximum(others, 1)
    share = _shares(kept, size, axis_name)
    return TriceCoefficients(share * (1 - beta * right), share * beta * right - share * beta)


def marginal_log_prob(log_probs: Float[ArrayLike, "B Z"], correct: Bool[ArrayLike, "B Z"]) -> Float[Array, " B"]:
    r"""How likely the right answer is over all rationales, $\log p(y | x) = \log \sum_z p(z | x)\, c(z, y)$, where they can be listed.

    Its gradient is $E_{z \sim p(z | x, y)}[\nabla \log p(z | x)]$, with the posterior $p(z | x, y) \propto p(z | x)\, c(z, y)$: what TRICE estimates.

    Args:
      log_probs: `[B, Z]`, of each of Z rationales; all of them sum to 1 in a row.
      correct: `[B, Z]` booleans, which of them lead to the right answer.

    Returns:
      float32 `[B]`, not above 0 but by rounding; minus infinity, without a gradient, where none does.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree.

    Reference: Phan et al., "Training Chain-of-Thought via Latent-Variable Inference" (TRICE), NeurIPS 2023.

    >>> print(jnp.exp(marginal_log_prob(jnp.log(jnp.array([[0.5, 0.25, 0.25]])), jnp.array([[False, True, True]]))))
    [0.5]
    """
    check.arrays(log_probs=(log_probs, "B Z"), correct=(correct, "B Z", "bool"))
    some = jnp.any(jnp.asarray(correct), axis=1)
    kept = jnp.where(correct, float_array(log_probs), -jnp.inf)
    return jnp.where(some, jax.nn.logsumexp(jnp.where(some[:, None], kept, 0), axis=1), -jnp.inf)


def rejection_coefficients(correct: Bool[ArrayLike, " M"], *, axis_name: str | None = None) -> Float[Array, " M"]:
    r"""The weights of learning from right rationales alone, $c_m / \sum_j c_j$.

    With the model's proposals it is rejection sampling, which neglects examples that are seldom solved: an example has weight as often as its
    proposal is right. With rationales that were kept (a memory, or those written with the answer in sight) it is STaR, and TRICE without its control
    variate.

    Args:
      correct: `[M]` booleans, whether the rationale leads to the right answer.
      axis_name: the mapped axis over which the examples are split, or None.

    Returns:
      float32 `[M]`, to be averaged over the batch: M times the share, 0 everywhere where none is right.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: a wrong shape, an axis that is not mapped.

    Reference: Zelikman et al., "STaR: Bootstrapping Reasoning With Reasoning", NeurIPS 2022.

    >>> rejection_coefficients(jnp.array([True, False, True, False])).tolist()
    [2.0, 0.0, 2.0, 0.0]
    """
    size = check.arrays(correct=(correct, "M", "bool"))["M"]
    check.axis("axis_name", axis_name)
    return _shares(correct, size, axis_name)


def _kept(where, x):
    """`x` with what doesn't count overwritten, so that nothing in it reaches a gradient."""
    return float_array(x) if where is None else jnp.where(where, float_array(x), 0)


def _centred(x, where):
    """Values `[B, K]` less the mean of those that exist, and k / (k - 1) of each row, `[B, 1]`: 0 where a value or all but one doesn't exist."""
    kept = jnp.ones(jnp.shape(x), bool) if where is None else jnp.asarray(where)
    count = jnp.sum(kept, axis=1, keepdims=True).astype(x.dtype)
    mean = jnp.sum(x, axis=1, keepdims=True) / jnp.maximum(count, 1)
    return jnp.where(kept, x - mean, 0), jnp.where(count > 1, count / jnp.maximum(count - 1, 1), 0)


def _shares(correct, size, axis_name):
    """What each right one of a batch over all devices counts in its mean."""
    correct = jnp.asarray(correct).astype(jnp.float32)
    total = size * (1 if axis_name is None else lax.axis_size(axis_name))
    return total * correct / jnp.maximum(_pairs.total(correct, axis_name), 1)
