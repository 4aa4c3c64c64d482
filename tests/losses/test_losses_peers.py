"""The losses beside their twins: numbers and gradients of pytorch-metric-learning and lightly (recorded, `recorded/record_peers.py`), and of optax.

Where a twin averages otherwise the test says how; the docstrings of the losses say why.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import losses
from cljax.core import safe_normalize

PEERS = dict(np.load(pathlib.Path(__file__).with_name("recorded") / "peers.npz"))
A, B, QUEUE, PAST = (np.float32(PEERS[name]) for name in ("a", "b", "queue", "past"))
Z, LABELS, PAST_LABELS = np.concatenate([A, B]), PEERS["labels"], PEERS["past_labels"]
SAME = LABELS[:, None] == LABELS
POSITIVE = SAME & ~np.eye(len(Z), dtype=bool)
T, MARGIN = np.float32(0.2), np.float32(0.3)
QUICKLY = {"xla_backend_optimization_level": 0}


def dclw_weights():
    cosine = -losses.negative_cosine(A, B)
    return 2 - len(A) * jax.nn.softmax(cosine / 0.5)


def ntxent_of_labels(z):
    """A value for each positive pair, all averaged at once: an anchor weighs as many times as it has positives."""
    lists = jnp.broadcast_to(z, (len(z), *z.shape))
    each = losses.grouped_info_nce(z, lists, lists, temperature=T, positive_weights=POSITIVE, negative_weights=~SAME, combine="apart")
    return losses.mean(each, np.float32(POSITIVE.sum(axis=1)))


def triplets(z, mining, weights):
    return losses.mean(losses.triplet_margin(safe_normalize(z), LABELS, margin=MARGIN, mining=mining), np.float32(weights))


def vicreg(a, b):
    invariance = losses.mean(losses.alignment(a, b, similarity="sqeuclidean")) / a.shape[1]
    spread = (losses.variance(a) + losses.variance(b)) / 2
    return 25 * invariance + 25 * spread + losses.covariance(a) + losses.covariance(b)


OURS = {
    "lightly ntxent": lambda a, b: losses.mean(losses.nt_xent(a, b, temperature=T)),
    "lightly queue": lambda a, b: losses.mean(losses.info_nce(a, b, temperature=T, negatives=QUEUE, in_batch=False)),
    "lightly dcl": lambda a, b: losses.mean(losses.decoupled_info_nce(a, b, temperature=T)),
    "lightly dclw": lambda a, b: losses.mean(losses.decoupled_info_nce(a, b, temperature=T, positive_weights=dclw_weights())),
    "lightly barlow": lambda a, b: losses.barlow_twins(a, b, off_diagonal_weight=0.01),
    "lightly vicreg": vicreg,
    "lightly cosine": lambda a, b: losses.mean(losses.negative_cosine(a, b, stop_gradient=False)),
    "pml ntxent of views": lambda z: losses.mean(losses.nt_xent(z[:6], z[6:], temperature=T)),
    "pml ntxent": ntxent_of_labels,
    "pml supcon": lambda z: losses.mean(losses.sup_con(z, LABELS, temperature=T)),
    # All non-zero triplets averaged at once: an anchor weighs as much as it has of them.
    "pml triplet all": lambda z: triplets(z, "all", PEERS["pml triplet all, count"]),
    "pml triplet semihard": lambda z: triplets(z, "semi_hard", PEERS["pml triplet semihard, count"]),
    "pml triplet hard": lambda z: triplets(z, "hard", PEERS["pml triplet hard, count"]),
    "pml contrastive": lambda z: losses.pairwise_contrastive(safe_normalize(z), LABELS, positive_margin=0.1, negative_margin=1.2).values,
}


def test_recorded_peers_give_the_same_numbers_and_gradients():
    def found():
        for name, loss in OURS.items():
            leaves = (A, B) if name.startswith("lightly") else (Z,)
            total = lambda *x, loss=loss: (jnp.sum(values := loss(*x)), values)  # noqa: E731
            yield name, jax.value_and_grad(total, argnums=tuple(range(len(leaves))), has_aux=True)(*leaves)

    for name, ((_, value), gradients) in jax.jit(lambda: dict(found()), compiler_options=QUICKLY)().items():
        np.testing.assert_allclose(value, PEERS[name], rtol=2e-6, atol=2e-6, err_msg=name)
        for side, gradient in zip("ab", gradients, strict=False):
            expected = PEERS[f"{name}, d{side}"]
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()), err_msg=f"{name}, d{side}")


def test_a_memory_of_past_batches_is_references():
    """Their memory holds the batch too, itself left out: as ours, which compares with the batch and with what is in the memory before it."""

    def found(z):
        memory = dict(references=PAST, reference_labels=PAST_LABELS)
        unit = memory | dict(references=safe_normalize(PAST))
        return losses.mean(losses.sup_con(z, LABELS, temperature=T, **memory)), losses.triplet_margin(
            safe_normalize(z), LABELS, margin=MARGIN, **unit
        )

    softmax, triplet = jax.jit(found, compiler_options=QUICKLY)(Z)
    np.testing.assert_allclose(softmax, PEERS["pml memory supcon"], rtol=2e-6)
    np.testing.assert_allclose(triplet.values, PEERS["pml memory triplet"], atol=2e-6)
    assert triplet.where.all()  # the one without a positive in the batch has one in the memory


def test_optax_gives_the_same():
    def found(z):
        distance = jnp.sqrt(jnp.sum((z[:, None] - z) ** 2, axis=-1))
        farthest, nearest = jnp.argmax(jnp.where(POSITIVE, distance, -1), axis=1), jnp.argmin(jnp.where(SAME, 99, distance), axis=1)
        mined = losses.triplet_margin(z, LABELS, margin=MARGIN, mining="hard")
        ours = ntxent_of_labels(z), mined.values, 1 + losses.negative_cosine(A, B)
        aligned = optax.losses.triplet_margin_loss(z, z[farthest], z[nearest], margin=MARGIN, eps=0.0)  # its eps enters the root
        return ours, (optax.losses.ntxent(z, LABELS, T), jnp.where(mined.where, aligned, 0), optax.losses.cosine_distance(A, B))

    for ours, theirs in zip(*jax.jit(found, compiler_options=QUICKLY)(Z), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)
