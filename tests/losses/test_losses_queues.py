"""InfoNCE against queues, as momentum contrast of texts and of code uses it: worked numbers, gradients that must be zero, a queue after a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses, memory


def unit(rows):
    return np.float32(rows / np.linalg.norm(np.float64(rows), axis=1, keepdims=True))


C, Q = unit(np.array([[1, 0, 0], [0, 1, 0]])), unit(np.array([[0.9, 0.1, 0], [0.2, 1, 0.1]]))
C2, Q2 = unit(np.array([[1, 0.1, 0.1], [0.1, 1, 0]])), unit(np.array([[0.8, 0.2, 0.1], [0, 1, 0.3]]))
QUEUES = {
    "c": unit(np.array([[0, 0, 1], [1, 1, 0]])),
    "q": unit(np.array([[0, 1, 1], [-1, 0, 0]])),
    "c2": unit(np.array([[1, 0, 1], [0, -1, 0]])),
    "q2": unit(np.array([[0.5, 0.5, 0.5], [0, 0, -1]])),
}
TABLE = {0.07: [0.010642, 0.004212, 0.080426, 0.007669, 0.008696, 0.022085], 1.0: [0.805901, 0.915804, 0.979419, 0.835209, 0.789750, 0.959731]}


def blocks(c, q, c2, q2, queues, temperature):
    """The four blocks between code and query, the two within, `[6, B]`; augmented views are keys of another encoder."""
    c2, q2 = jax.lax.stop_gradient((c2, q2))
    pairs = ((c, q, "q"), (c, q2, "q2"), (q, c, "c"), (q, c2, "c2"), (c, c2, "c2"), (q, q2, "q2"))
    return jnp.stack([losses.info_nce(u, v, temperature=temperature, negatives=jax.lax.stop_gradient(queues[name])) for u, v, name in pairs])


@pytest.fixture(scope="module")
def program():
    def total(*arguments):
        found = blocks(*arguments)
        return found.mean(), found

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3, 4), has_aux=True))


@pytest.mark.parametrize(("temperature", "inter", "six"), [(0.07, 0.025737, 0.022288), (1.0, 0.884083, 0.880969)])
def test_six_blocks_of_code_and_query(program, temperature, inter, six):
    (value, found), gradients = program(C, Q, C2, Q2, QUEUES, temperature)
    np.testing.assert_allclose(found.mean(axis=1), TABLE[temperature], atol=1.5e-6)
    np.testing.assert_allclose(found[:4].mean(), inter, atol=1e-6)
    np.testing.assert_allclose(value, six, atol=1e-6)
    assert all((np.abs(g) > 1e-6).any() for g in gradients[:2]) and not any(np.any(g) for g in jax.tree.leaves(gradients[2:]))


def test_a_multiplier_of_twenty_leaves_nothing_to_learn(program):
    assert (program(C, Q, C2, Q2, QUEUES, 0.07 / 20)[0][1] < 1e-6).all()


def test_the_order_of_a_queue_does_not_matter_and_a_longer_one_never_lowers_a_block(program):
    plain = program(C, Q, C2, Q2, QUEUES, 0.07)[0][1]
    turned = program(C, Q, C2, Q2, {name: rows[::-1] for name, rows in QUEUES.items()}, 0.07)[0][1]
    np.testing.assert_allclose(turned, plain, atol=1e-6)
    in_batch = lambda u, v: (losses.info_nce(u, v, temperature=0.07), losses.info_nce(v, u, temperature=0.07))  # noqa: E731
    *each, both = jax.jit(lambda u, v: (*in_batch(u, v), losses.symmetric_info_nce(u, v, temperature=0.07)))(C, Q)
    assert (np.asarray(plain)[[0, 2]] >= np.asarray(each)).all()
    np.testing.assert_allclose(np.mean(each, axis=0), both, atol=1e-6)


def test_after_a_step_the_queues_hold_the_batch():
    init, update = memory.queue(2, 3)
    state = init(jax.random.key(0))
    for keys in (C, C2):
        np.testing.assert_array_equal(update(state, keys).keys, keys)


# Momentum contrast of crops: raw products, negatives from the queue alone.

MOCO_Q, MOCO_K = np.float32([[1, 0], [0.6, 0.8], [0, -1]]), np.float32([[0.8, 0.6], [0, 1], [1, 0]])
QUEUE = np.float32([[1, 0], [0, 1], [-1, 0], [0, -1]])


def moco(q, k, queue, temperature=1.0):
    k, queue = jax.lax.stop_gradient((k, queue))
    return losses.info_nce(q, k, temperature=temperature, negatives=queue, in_batch=False, similarity="dot")


def test_momentum_contrast_of_crops_and_where_its_gradients_go():
    gradient = jax.jit(jax.value_and_grad(lambda q, k, queue: losses.mean(moco(q, k, queue)), argnums=(0, 1, 2)))
    value, (q, k, queue) = gradient(MOCO_Q, MOCO_K, QUEUE)
    np.testing.assert_allclose(value, 1.393145, atol=1e-6)
    np.testing.assert_allclose(gradient(MOCO_Q, MOCO_K, QUEUE[::-1])[0], value, atol=1e-6)
    np.testing.assert_allclose(q, [[-0.078346, -0.139124], [0.058371, -0.149885], [-0.278564, -0.128729]], atol=1e-6)
    assert not np.any(k) and not np.any(queue)


def test_in_the_batch_the_gradient_goes_to_both_sides():
    both = jax.jit(jax.grad(lambda q, k: losses.mean(losses.info_nce(q, k, temperature=1.0, similarity="dot")), argnums=(0, 1)))(MOCO_Q, MOCO_K)
    assert all(np.abs(g).max() > 0.01 for g in both)


def test_a_queue_of_the_batchs_other_keys_is_the_in_batch_loss_and_an_empty_one_none():
    others = np.stack([MOCO_K[[1, 2]], MOCO_K[[0, 2]], MOCO_K[[0, 1]]])

    @jax.jit
    def found(q, k):
        alone = jax.vmap(lambda q, k, queue: moco(q[None], k[None], queue)[0])(q, k, others)
        unfilled = losses.info_nce(q, k, temperature=1.0, negatives=QUEUE, in_batch=False, negative_where=np.zeros(4, bool))
        empty = losses.info_nce(q, k, temperature=1.0, negatives=QUEUE[:0], in_batch=False)
        return alone, losses.info_nce(q, k, temperature=1.0, similarity="dot"), jnp.stack([unfilled, empty])

    alone, in_batch, unfilled = found(MOCO_Q, MOCO_K)
    np.testing.assert_allclose(alone, in_batch, atol=1e-6)
    np.testing.assert_allclose(unfilled, 0, atol=1e-6)


def test_a_momentum_encoder_follows_sees_the_update_of_its_step_and_can_be_frozen():
    def after(decay, steps):
        init, update = memory.ema(decay)
        state = init({"w": jnp.ones(())})
        for _ in range(steps):
            state = update(state, {"w": jnp.full((), 3.0)})
        return float(state.params["w"])

    np.testing.assert_allclose(after(0.9995, 3), 1.0029985, atol=1e-6)
    assert after(1.0, 2) == 1 and after(0.0, 1) == 3
