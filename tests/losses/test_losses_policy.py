"""Policies that learn from rewards: the worked numbers of the papers, three forms of one gradient, fixed points of a bandit, coefficients."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses

f32 = np.float32
QUICKLY = {"xla_backend_optimization_level": 0}
PAIR = dict(first=-10.0, second=-12.0, reference_first=-11.0, reference_second=-11.5, reward_first=0.8, reward_second=-0.3)
PAIR = {name: f32([value]) for name, value in PAIR.items()}
GROUP = f32([[-5, -6, -4.5, -7]]), f32([[-5.5, -5.5, -5, -6]]), f32([[1, 0, 0.5, -1]])


def compiled(function, *arguments):
    return jax.device_get(jax.jit(function, compiler_options=QUICKLY)(*arguments))


def close(found, expected, atol=1.1e-6):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def with_gradients(loss):
    """A loss of two log-probabilities: its value and both derivatives."""
    return lambda *pair: jax.value_and_grad(lambda *pair: jnp.sum(loss(*pair)), argnums=(0, 1))(*pair)


@jax.jit
def every_form(beta, first, second, reference_first, reference_second, reward_first, reward_second):
    """Value and derivatives of the loss, of its surrogate with constant weights and of the square."""
    references, rewards = (reference_first, reference_second), (reward_first, reward_second)

    def surrogate(first, second):
        log_probs = jnp.stack([first, second], axis=1)
        regularised = jnp.stack(rewards, axis=1) - beta * (log_probs - jnp.stack(references, axis=1))
        return losses.reinforce(log_probs, losses.leave_one_out(regularised))

    def square(first, second):
        regularised = [reward - beta * (lp - reference) for lp, reference, reward in zip((first, second), references, rewards, strict=True)]
        return jnp.square(regularised[0] - regularised[1])

    forms = {"loss": lambda *pair: losses.copg(*pair, *references, *rewards, beta=beta), "surrogate": surrogate, "square": square}
    return {name: with_gradients(form)(first, second) for name, form in forms.items()}


# Oracles 1 and 3: with a stop_gradient too many the derivative at beta 0.1 would be 1.025.
@pytest.mark.parametrize("beta, objective, derivative, square", [(0, 1.65, 1.1, 1.21), (0.1, 1.5375, 0.95, 0.9025), (0.5, 1.0875, 0.35, 0.1225)])
def test_copg_and_its_two_other_forms_have_the_papers_numbers(beta, objective, derivative, square):
    found = jax.device_get(every_form(f32(beta), **PAIR))
    value, gradient = found["loss"]
    close(value, -objective)
    close(gradient, [[-derivative], [derivative]])
    close(found["surrogate"][1], gradient)
    close(found["square"][0], square)
    close(square, 1.1**2 - 2 * beta * objective)
    close(found["square"][1], 2 * beta * np.array(gradient))


def test_the_three_forms_agree_in_gradient_on_any_pairs():
    rng = np.random.default_rng(0)
    for beta in (0.05, 1.0, 3.0):
        pairs = {name: f32(rng.normal(size=5) * 3) for name in PAIR}
        found = jax.device_get(every_form(f32(beta), **pairs))
        wide = {name: np.float64(x) for name, x in pairs.items()}
        ratio = wide["first"] - wide["second"] - wide["reference_first"] + wide["reference_second"]
        advantage = wide["reward_first"] - wide["reward_second"] - beta * ratio
        for name, scale in (("loss", 1), ("surrogate", 1), ("square", 2 * beta)):
            close(np.array(found[name][1]) / scale, [-advantage, advantage], atol=2e-5)


def test_copg_knows_no_order_and_no_constant_reward_and_scales_with_its_units():
    swapped = {name: PAIR[name.replace("first", "*").replace("second", "first").replace("*", "second")] for name in PAIR}
    moved = PAIR | {name: PAIR[name] + 7 for name in ("reward_first", "reward_second")}
    scaled = PAIR | {name: 3 * PAIR[name] for name in ("reward_first", "reward_second")}
    found = compiled(lambda: [losses.copg(**pair, beta=b) for pair, b in ((PAIR, 0.1), (swapped, 0.1), (moved, 0.1), (scaled, 0.3))])
    close(found[1:3], [found[0]] * 2, atol=2e-6)
    close(found[3], 3 * found[0], atol=2e-6)


def test_where_the_policy_is_the_reference_copg_is_zero_and_follows_the_rewards():
    at_reference = PAIR | dict(first=PAIR["reference_first"], second=PAIR["reference_second"])
    value, gradient = every_form(f32(0.4), **at_reference)["loss"]
    close(value, 0)
    close(gradient, [[-1.1], [1.1]])


def test_ipo_is_copg_with_rewards_of_a_quarter():
    pair = {"first": 0.7, "second": -0.2, "reference_first": 0.0, "reference_second": 0.0, "reward_first": 0.25, "reward_second": -0.25}
    pair = {name: f32([value]) for name, value in pair.items()}
    value, gradient = every_form(f32(0.3), **pair)["loss"]
    close(value, -0.3285)
    close(gradient, [[-0.23], [0.23]])
    zero = f32([0])
    found, of_ipo = compiled(with_gradients(lambda *two: losses.ipo(*two, zero, zero, beta=0.3)), pair["first"], pair["second"])
    close(-(0.3**2) * found / (2 * 0.3), -0.088167)
    close(0.3 / 2 * np.array(of_ipo), gradient)


def test_a_generation_twice_teaches_nothing():
    def loss(log_prob, reward):
        twice = jnp.array([reward, 0.5])
        return losses.copg(log_prob, log_prob, PAIR["reference_first"], PAIR["reference_first"], twice[:1], twice[1:], beta=0.1)[0]

    value, gradient = compiled(jax.vmap(jax.value_and_grad(loss), (None, 0)), PAIR["first"], f32([0.5, -2]))  # also with rewards that differ
    assert not value.any() and not gradient.any()


def test_pairs_that_do_not_count_hide_what_they_hold_and_others_show_it():
    def total(first, second, reward, where):
        others = [PAIR[name].repeat(3) for name in ("reference_first", "reference_second")]
        value = losses.copg(first, second, *others, reward, PAIR["reward_second"].repeat(3), beta=0.1, where=where)
        return losses.mean(value, where), value

    inputs = f32([-10, np.nan, -10]), f32([-12, -12, -12]), f32([0.8, 0.8, np.nan])
    (mean, value), gradient = compiled(jax.value_and_grad(total, argnums=(0, 1), has_aux=True), *inputs, np.array([True, False, False]))
    close(value, [-1.5375, 0, 0])
    close(mean, -1.5375)
    close(gradient, [[-0.95, 0, 0], [0.95, 0, 0]])
    assert np.isnan(compiled(total, *inputs, np.ones(3, bool))[1]).tolist() == [False, True, True]
    assert compiled(jax.grad(lambda *inputs: total(*inputs)[0]), *inputs, np.zeros(3, bool)).tolist() == [0, 0, 0]


def test_copg_of_a_group_and_its_leave_one_out_advantages():
    def found(log_probs, reference, rewards):
        total = lambda lp: jnp.sum(losses.copg_group(lp, reference, rewards, beta=0.2))  # noqa: E731
        regularised = rewards - 0.2 * (log_probs - reference)
        return *jax.value_and_grad(total)(log_probs), losses.leave_one_out(regularised), regularised

    value, gradient, advantages, regularised = compiled(found, *GROUP)
    close(regularised, [[0.9, 0.1, 0.4, -0.8]])
    close(value, 2.04)
    close(value, 4 * np.var(regularised[0], ddof=1))
    close(advantages, [[1, -0.066667, 0.333333, -1.266667]])
    close(gradient, [[-0.4, 0.026667, -0.133333, 0.506667]])
    close(gradient, -2 * 0.2 * advantages)


def test_copg_of_two_is_the_square_of_the_pair():
    def found(first, second, reference_first, reference_second, reward_first, reward_second):
        stacked = [jnp.stack(two, axis=1) for two in ((first, second), (reference_first, reference_second), (reward_first, reward_second))]
        return losses.copg_group(*stacked, beta=0.1), losses.copg(
            first, second, reference_first, reference_second, reward_first, reward_second, beta=0.1
        )

    group, pair = compiled(found, *PAIR.values())
    close(group, 2 * 0.1 * pair + 1.1**2)


def test_generations_that_do_not_exist_are_as_if_deleted():
    where = np.array([[True, False, True, True], [False, True, False, False], [False] * 4])
    log_probs, reference, rewards = (np.where(where, np.broadcast_to(x, (3, 4)), np.nan).astype(f32) for x in GROUP)

    def found(log_probs):
        total = lambda lp: jnp.sum(losses.copg_group(lp, reference, rewards, beta=0.2, where=where))  # noqa: E731
        values = losses.copg_group(log_probs, reference, rewards, beta=0.2, where=where)
        return values, jax.grad(total)(log_probs), losses.leave_one_out(rewards, where=where)

    values, gradient, advantages = compiled(found, log_probs)
    few = [x[:, [0, 2, 3]] for x in GROUP]
    close(values, [losses.copg_group(*few, beta=0.2)[0], 0, 0])
    close(advantages[0, [0, 2, 3]], losses.leave_one_out(few[2])[0])
    assert not advantages[1:].any() and np.isfinite(gradient).all() and not gradient[~where].any() and gradient[0, 0] != 0
    assert np.isnan(compiled(lambda lp: losses.copg_group(lp, reference, rewards, beta=0.2), log_probs)).all()


def test_reinforce_has_the_advantage_as_its_gradient_and_none_for_the_advantage():
    log_probs, advantages = f32([[-1, -2, -3], [-4, -5, -6]]), f32([[1, -2, 0.5], [3, np.nan, -1]])
    where = np.array([[True] * 3, [True, False, True]])
    total = lambda lp, adv: jnp.sum(losses.reinforce(lp, adv, where=where))  # noqa: E731
    value, (by_log_probs, by_advantages) = compiled(jax.value_and_grad(total, argnums=(0, 1)), log_probs, advantages)
    close(value, 1 - 4 + 1.5 + 12 - 6)
    close(by_log_probs, [[-1, 2, -0.5], [-3, 0, 1]])
    assert not by_advantages.any()


# The three-armed bandit: rewards, where the two generations of a pair come from, and every pair with its probability.
R, MU, MU2, BETA = f32([2.5, 2, 1]), np.array([0.1, 0.2, 0.7]), np.array([0.05, 0.05, 0.9]), 0.5
Y, Y2 = np.array(list(itertools.product(range(3), range(3)))).T
WEIGHTS = f32(MU[Y] * MU2[Y2])


def bandit(logits):
    """{loss: its mean over all pairs}, as a function of three logits."""
    log_p, reference = jax.nn.log_softmax(logits), jnp.full(3, -jnp.log(3.0))
    pair = log_p[Y], log_p[Y2], reference[Y], reference[Y2]
    flipped = pair[1], pair[0], pair[3], pair[2]
    regularised = R - BETA * (log_p - reference)
    value = jnp.sum(jnp.exp(log_p) * R)
    prefers = jax.nn.sigmoid(R[Y] - R[Y2])

    def policy_gradient(baseline):
        return sum(losses.reinforce(log_p[y], regularised[y] - baseline) for y in (Y, Y2))

    def preference(loss):
        return prefers * loss(*pair, beta=BETA) + (1 - prefers) * loss(*flipped, beta=BETA)

    every = {"copg": losses.copg(*pair, R[Y], R[Y2], beta=BETA), "ipo": preference(losses.ipo), "dpo": preference(losses.dpo)}
    every |= {"no baseline": policy_gradient(0), "value baseline": policy_gradient(value)}
    return {name: jnp.sum(WEIGHTS * values) for name, values in every.items()}


BEST = [0.705385, 0.259496, 0.035119]
FIXED = {"copg": BEST, "ipo": [0.424169, 0.352706, 0.223125], "dpo": BEST, "no baseline": [0.193990, 0.250139, 0.555871]}
FIXED |= {"value baseline": [0.811548, 0.167525, 0.020927]}


def test_the_fixed_points_of_five_losses_on_a_bandit():
    def descend(name):
        gradient = jax.grad(lambda logits: bandit(logits)[name])
        return jax.nn.softmax(jax.lax.fori_loop(0, 6000, lambda _, logits: logits - 0.4 * gradient(logits), jnp.zeros(3)))

    found = compiled(lambda: {name: descend(name) for name in FIXED})
    for name, expected in FIXED.items():  # of the preferences' losses dpo alone finds the best policy: they are drawn as it assumes
        close(found[name], expected, atol=2e-5)
    close(BEST, np.exp(R / BETA) / np.exp(R / BETA).sum())


def test_the_population_objective_is_greatest_at_the_best_policy():
    points = np.log(np.random.default_rng(0).dirichlet(np.ones(3), 200)).astype(f32)
    objective = compiled(jax.vmap(lambda logits: -bandit(logits)["copg"]), np.concatenate([[np.log(BEST)], [np.zeros(3)], points]).astype(f32))
    close(objective[:2], [0.5, 0])
    assert (objective[1:] < objective[0]).all()


# TRICE: six examples, proposals of which two are right, memories of which four are after the step.
PROPOSED = np.array([1, 0, 0, 1, 0, 0], bool)
KEPT = np.array([1, 1, 0, 0, 1, 0], bool) | PROPOSED


def test_the_coefficients_of_trice():
    kept, proposed = compiled(losses.trice_coefficients, PROPOSED, KEPT)
    close(kept / 6, [0.166667, 0.25, 0, 0.166667, 0.25, 0])
    close(proposed / 6, [0, -0.166667, 0, 0, -0.166667, 0])
    close(losses.rejection_coefficients(KEPT) / 6, KEPT / 4)  # its form without a control variate
    close(losses.rejection_coefficients(PROPOSED) / 6, PROPOSED / 2)


@pytest.mark.parametrize(
    "proposed, kept, expected, of_proposals",
    [
        ([1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]),  # all right: nothing is left to learn, and no noise
        ([0, 0, 0], [1, 0, 1], [0.5, 0, 0.5], [0, 0, 0]),  # none right: the mean over memories that are
        ([0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]),
        ([0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]),  # alone: no other proposal tells beta
        ([0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]),
    ],
)
def test_coefficients_at_the_ends(proposed, kept, expected, of_proposals):
    found = losses.trice_coefficients(np.array(proposed, bool), np.array(kept, bool))
    close(found.kept / 3, expected)
    close(found.proposed / 3, of_proposals)


THETA, C = np.array([0.5, -0.2, 0.1, 0]), np.array([1, 0, 1, 0])


@pytest.mark.parametrize(
    "theta, betas, traces",
    [
        (THETA, [0, 0.25, 0.5, 0.602257, 1], [0.480521, 0.381554, 0.374047, 0.397333, 0.633420]),
        (np.array([3, -2, 3, -2]), [0, 0.993307], [0.5, 0.013230]),
    ],
)
def test_the_control_variate_keeps_the_mean_and_lowers_the_variance(theta, betas, traces):
    """By enumeration of memory (at stationarity) and proposal, float64."""
    p = np.exp(theta) / np.exp(theta).sum()
    posterior = p * C / (p @ C)
    score = np.eye(4) - p  # the gradient of log p(z)
    for beta, trace in zip(betas, traces, strict=True):
        memory, proposal = np.array(list(itertools.product(range(4), range(4)))).T
        kept = np.where(C[proposal] == 1, proposal, memory)
        g, weight = score[kept] - beta * score[proposal], posterior[memory] * p[proposal]
        mean = weight @ g
        close(mean, posterior - p)
        close(weight @ np.square(g - mean).sum(1), trace)
        close(np.bincount(kept, weight, minlength=4), posterior)  # memory stays at stationarity
    if theta is THETA:
        close(p, [0.360564, 0.179051, 0.241693, 0.218693])
        close(posterior, [0.598688, 0, 0.401312, 0])
        close(posterior - p, [0.238124, -0.179051, 0.159619, -0.218693])


def test_the_gradient_of_all_rationales_is_that_of_the_posterior():
    logits, right = f32([THETA, THETA]), np.array([C, [0, 0, 0, 0]], bool)
    found, grads = compiled(jax.value_and_grad(lambda z: losses.marginal_log_prob(jax.nn.log_softmax(z), right)[0]), logits)
    close(np.exp(found), 0.602257)
    close(grads, [[0.238124, -0.179051, 0.159619, -0.218693], [0, 0, 0, 0]])
    none, grads = compiled(jax.value_and_grad(lambda z: losses.marginal_log_prob(jax.nn.log_softmax(z), right)[1]), logits)
    assert none == -np.inf and (grads == 0).all()


def test_trice_is_unbiased_in_a_batch():
    """By enumeration of three examples' proposals and of their memories, drawn from the posterior."""
    logits = np.array([[0.5, -0.2, 0.1], [1.0, 0, -1], [0.3, 0.4, -0.5]])
    right = np.array([[1, 0, 1], [0, 1, 1], [1, 0, 0]])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    posterior = p * right / (p * right).sum(1, keepdims=True)
    states = np.array(list(itertools.product(range(3), repeat=6)))
    memory, proposal, rows = states[:, :3], states[:, 3:], np.arange(3)
    weight = np.prod(posterior[rows, memory] * p[rows, proposal], axis=1)
    states, memory, proposal = (x[weight > 0] for x in (states, memory, proposal))
    accepted = right[rows, proposal] == 1
    kept = np.where(accepted, proposal, memory)
    found = jax.jit(jax.vmap(losses.trice_coefficients), compiler_options=QUICKLY)(accepted, right[rows, kept] == 1)
    score = lambda z: np.eye(3)[z] - p  # noqa: E731
    estimate = (np.float64(found.kept)[..., None] * score(kept) + np.float64(found.proposed)[..., None] * score(proposal)) / 3
    close(np.tensordot(weight[weight > 0], estimate, 1), (posterior - p) / 3, atol=1e-6)


@pytest.mark.parametrize("check_vma", [True, False])
def test_coefficients_of_four_devices_are_those_of_one(check_vma):
    proposed, kept = np.array([1, 0, 0, 0, 1, 0, 1, 0], bool), np.array([1, 1, 0, 0, 1, 0, 1, 1], bool)
    mesh, split = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)), jax.P("data")

    def found(proposed, kept, log_probs, axis_name="data"):
        def total(scale):
            coefficients = losses.trice_coefficients(proposed, kept, axis_name=axis_name)
            values = losses.reinforce(scale * log_probs, coefficients.kept) + losses.reinforce(scale * log_probs, coefficients.proposed)
            values += losses.reinforce(scale * log_probs, losses.rejection_coefficients(proposed, axis_name=axis_name))
            return losses.mean(values, axis_name=axis_name)

        value, gradient = jax.value_and_grad(total)(f32(1.5))
        return value, gradient if axis_name is None else jax.lax.pmean(gradient, axis_name)

    inputs = proposed, kept, f32(-np.arange(1, 9))
    many = compiled(jax.shard_map(found, mesh=mesh, in_specs=(split,) * 3, out_specs=jax.P(), check_vma=check_vma), *inputs)
    close(many, compiled(partial(found, axis_name=None), *inputs), atol=2e-6)


def test_bfloat16_is_computed_in_float32():
    narrow = {name: jnp.asarray(value, jnp.bfloat16) for name, value in (PAIR | {"reward_first": f32([0.75]), "reward_second": f32([-0.25])}).items()}
    value = losses.copg(**narrow, beta=0.5)
    assert value.dtype == jnp.float32
    close(value, -(1 - 0.25 * 1.5) * 1.5)
    assert losses.reinforce(narrow["first"], narrow["second"]).dtype == losses.leave_one_out(jnp.ones((1, 2), jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.errors
@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: losses.copg(**PAIR, beta=-0.1), ValueError, "beta must be at least 0, got -0.1"),
        (
            lambda: losses.copg(**PAIR | dict(second=f32([1, 2])), beta=0.1),
            ValueError,
            r"second must have shape \[B\] with B = 1 as in first",
        ),
        (lambda: losses.copg(**PAIR, beta=0.1, where=f32([1])), TypeError, "where must have dtype bool"),
        (lambda: losses.copg_group(*(x[:, :1] for x in GROUP), beta=0.1), ValueError, "the number of generations must be at least 2, got 1"),
        (lambda: losses.leave_one_out(f32([[1]])), ValueError, "the number of samples must be at least 2, got 1"),
        (lambda: losses.leave_one_out(f32([1, 2])), ValueError, r"rewards must have shape \[B, K\], got \[2\]"),
        (lambda: losses.reinforce(f32([1, 2]), f32([1])), ValueError, r"advantages must have the shape of log_probs, \[2\], got \[1\]"),
        (lambda: losses.trice_coefficients(PROPOSED, f32(KEPT)), TypeError, "kept must have dtype bool, got float32"),
        (lambda: losses.marginal_log_prob(f32([[1, 2]]), f32([[1, 0]])), TypeError, "correct must have dtype bool, got float32"),
        (lambda: losses.rejection_coefficients(KEPT, axis_name="data"), ValueError, "axis_name='data' is not mapped here"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
