import jax
import jax.numpy as jnp
import pytest

from cljax import losses

# Compiling is nearly all the time that these tests take.
QUICKLY = {"xla_backend_optimization_level": 0}


def info_nce(a, b, d, t, axis):
    options = dict(ids=d["ids"], where=d["where"], negatives=d["negatives"], negative_ids=d["negative_ids"], axis_name=axis)
    return losses.info_nce(a, b, temperature=t, label_smoothing=0.1, **options)


def grouped(a, b, d, t, axis):
    lists = jnp.broadcast_to(d["negatives"], (len(a), *d["negatives"].shape))
    return losses.grouped_info_nce(a, b[:, None], lists, temperature=t, where=d["where"])


def labelled(loss, a, d, axis, **options):
    memory = dict(references=d["negatives"], reference_labels=d["negative_ids"])
    return loss(a, d["labels"], ids=d["ids"], where=d["where"], distance="cosine", axis_name=axis, **memory, **options)


def sorted_triplets(a, b, d, t, axis):
    every, nearest = (labelled(losses.triplet_margin, a, d, axis, margin=t, mining=mining) for mining in ("all", "semi_hard"))
    return losses.Masked(every.values + nearest.values, every.where)


def redundancy(a, b, d, t, axis):
    how = dict(where=d["where"], axis_name=axis)
    return losses.barlow_twins(a, b, off_diagonal_weight=t, **how) + losses.variance(a, target=1 + t, **how) + losses.covariance(b, **how)


# Every loss of one signature: two views, a dict of all else, a temperature (or what is learned in its place) and an axis name.
LOSSES = {
    "info_nce": lambda a, b, d, t, axis: losses.info_nce(
        a,
        b,
        temperature=t,
        ids=d["ids"],
        where=d["where"],
        negatives=d["negatives"],
        negative_ids=d["negative_ids"],
        label_smoothing=0.1,
        axis_name=axis,
    ),
    "symmetric_info_nce": lambda a, b, d, t, axis: losses.symmetric_info_nce(a, b, temperature=t, ids=d["ids"], where=d["where"], axis_name=axis),
    "nt_xent": lambda a, b, d, t, axis: losses.nt_xent(a, b, temperature=t, ids=d["ids"], where=d["where"], axis_name=axis),
    "sup_con": lambda a, b, d, t, axis: losses.sup_con(a, d["labels"], temperature=t, ids=d["ids"], where=d["where"], axis_name=axis),
    "negatives alone": lambda a, b, d, t, axis: losses.info_nce(
        *(a, b), temperature=t, in_batch=False, ids=d["ids"], where=d["where"], negatives=d["bank"], negatives_axis_name=axis, axis_name=axis
    ),
    "positives outside": lambda a, b, d, t, axis: losses.multi_positive_info_nce(
        a, b, d["labels"], temperature=t, ids=d["ids"], where=d["where"], axis_name=axis
    ),
    "positives apart": lambda a, b, d, t, axis: losses.multi_positive_info_nce(
        a, b, d["labels"], temperature=t, combine="apart", where=d["where"], axis_name=axis
    ),
    "hard_contrastive": lambda a, b, d, t, axis: losses.hard_contrastive(
        a, b, k=3, temperature=t, ids=d["ids"], where=d["where"], negatives=d["negatives"], axis_name=axis
    ),
    "simple_contrastive": lambda a, b, d, t, axis: losses.simple_contrastive(a, b, weight=t, ids=d["ids"], where=d["where"], axis_name=axis),
    "sigmoid_contrastive": lambda a, b, d, t, axis: losses.sigmoid_contrastive(
        a, b, temperature=t, bias=-6 * t, ids=d["ids"], where=d["where"], axis_name=axis
    ),
    "grouped_info_nce": grouped,
    "decoupled_info_nce": lambda a, b, d, t, axis: losses.decoupled_info_nce(a, b, temperature=t, ids=d["ids"], where=d["where"], axis_name=axis),
    "hard_negative_info_nce": lambda a, b, d, t, axis: losses.hard_negative_info_nce(
        a, b, temperature=t, positive_prior=0.1, concentration=0.5, ids=d["ids"], where=d["where"], axis_name=axis
    ),
    "triplet_margin, hard": lambda a, b, d, t, axis: labelled(losses.triplet_margin, a, d, axis, margin=t, mining="hard"),
    "triplet_margin, all and semi-hard": sorted_triplets,
    "pairwise_contrastive": lambda a, b, d, t, axis: labelled(losses.pairwise_contrastive, a, d, axis, negative_margin=1 + t),
    "info_max": lambda a, b, d, t, axis: losses.info_max(a, where=d["where"], axis_name=axis),
    "barlow_twins, variance, covariance": redundancy,
    "uniformity": lambda a, b, d, t, axis: losses.uniformity(a, t=1 / t, ids=d["ids"], where=d["where"], axis_name=axis),
}


# Those that see the length of an embedding.
RAW = "info_max", "barlow_twins, variance, covariance"


@pytest.fixture(scope="session")
def raw():
    return RAW


@pytest.fixture(scope="session")
def every_loss():
    return LOSSES


@pytest.fixture(scope="session")
def every():
    """`every(a, b, c, t, d)`: each loss's values and the gradients of their sum, `{name: (values, gradients)}`, in one program.

    The negatives are c, d is the dict of all else.
    """

    def differentiated(loss, d, *arrays):
        def total(a, b, c, t):
            found = loss(a, b, d | dict(negatives=c, bank=c), t, None)
            values = jnp.atleast_1d(found.values if isinstance(found, losses.Masked) else found)
            return values.sum(), values

        (_, values), gradients = jax.value_and_grad(total, argnums=(0, 1, 2, 3), has_aux=True)(*arrays)
        return values, gradients

    def program(a, b, c, t, d):
        return {name: differentiated(loss, d, a, b, c, t) for name, loss in LOSSES.items()}

    return jax.jit(program, compiler_options=QUICKLY)
