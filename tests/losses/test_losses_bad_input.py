"""A mistake in an argument is answered before anything is computed, by an error that names the argument and what it may be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses

A = np.ones((4, 3), np.float32)
IDS = np.arange(4)

PAIRWISE = {
    "info_nce": lambda a=A, b=A, temperature=1.0, **o: losses.info_nce(a, b, temperature=temperature, **o),
    "symmetric_info_nce": lambda a=A, b=A, temperature=1.0, **o: losses.symmetric_info_nce(a, b, temperature=temperature, **o),
    "nt_xent": lambda a=A, b=A, temperature=1.0, **o: losses.nt_xent(a, b, temperature=temperature, **o),
    "sup_con": lambda a=A, b=None, temperature=1.0, **o: losses.sup_con(a, o.pop("labels", IDS), temperature=temperature, **o),
    "multi_positive_info_nce": lambda a=A, b=A, temperature=1.0, **o: losses.multi_positive_info_nce(
        a, b, o.pop("labels", IDS), temperature=temperature, **o
    ),
    "hard_contrastive": lambda a=A, b=A, temperature=1.0, **o: losses.hard_contrastive(a, b, temperature=temperature, **({"k": 2} | o)),
    "sigmoid_contrastive": lambda a=A, b=A, temperature=1.0, **o: losses.sigmoid_contrastive(a, b, temperature=temperature, **({"bias": 0.0} | o)),
    "decoupled_info_nce": lambda a=A, b=A, temperature=1.0, **o: losses.decoupled_info_nce(a, b, temperature=temperature, **o),
    "debiased_info_nce": lambda a=A, b=A, temperature=1.0, **o: losses.debiased_info_nce(a, b, temperature=temperature, positive_prior=0.1, **o),
    "hard_negative_info_nce": lambda a=A, b=A, temperature=1.0, **o: losses.hard_negative_info_nce(
        a, b, temperature=temperature, positive_prior=0.1, concentration=1.0, **o
    ),
}
TWO_SIDED = [name for name in PAIRWISE if name != "sup_con"]
LISTS = np.ones((4, 2, 3), np.float32)


def grouped(**options):
    arguments = dict(anchors=A, positives=LISTS, negatives=LISTS, temperature=1.0) | options
    return losses.grouped_info_nce(**arguments)


@pytest.mark.errors
@pytest.mark.parametrize("name", PAIRWISE)
def test_every_pairwise_loss_checks_what_all_share(name):
    loss = PAIRWISE[name]
    for options, message in (
        (dict(a=A[0]), r"must have shape \[B, D\], got \[3\]"),
        (dict(temperature=0.0), r"temperature must be greater than 0, got 0.0"),
        (dict(temperature=-np.ones(4, np.float32)), r"temperature must be greater than 0"),
        (dict(temperature=np.ones(3, np.float32)), r"temperature must be a scalar or have shape \[4\], got \[3\]"),
        (dict(ids=np.arange(5)), r"ids must have shape \[4\].*got \[5\]"),
        (dict(ids=np.zeros((4, 2, 2), int)), r"ids must have shape .*got \[4, 2, 2\]"),
        (dict(ids=np.array([0, 2**40, 1, 2])), r"ids must fit into 32 bits"),
        (dict(where=np.ones(3, bool)), r"where must have shape \[B\].*got \[3\]"),
        (dict(similarity="cosin"), r"similarity must be one of 'dot', 'cosine', 'sqeuclidean', got 'cosin'; did you mean 'cosine'"),
        (dict(implementation="fast"), r"implementation must be one of .*got 'fast'"),
        (dict(collective="scatter"), r"collective must be one of .*got 'scatter'"),
        (dict(block_size=0), r"block_size must be at least 1, got 0"),
        (dict(axis_name="data"), r"axis_name='data' is not mapped here"),
    ):
        if name == "multi_positive_info_nce" and "ids" in options:
            options = options | dict(key_ids=IDS)
        with pytest.raises(ValueError, match=message):
            loss(**options)
    for options, message in (
        (dict(a=np.ones((4, 3), int)), r"must have dtype float, got int32"),
        (dict(a="embeddings"), r"must be an array, got 'embeddings' \(str\)"),
        (dict(a=None), r"(a|queries|embeddings) must be an array, got None"),
        (dict(temperature=None), r"temperature must be a number, got None"),
        (dict(temperature="0.1"), r"temperature must be a number, got '0.1' \(str\)"),
        (dict(ids=np.ones(4, np.float32)), r"ids must have dtype int, got float32"),
        (dict(where=np.ones(4, int)), r"where must have dtype bool, got int32"),
    ):
        with pytest.raises(TypeError, match=message):
            loss(**options)


@pytest.mark.errors
@pytest.mark.parametrize("name", TWO_SIDED)
def test_two_sides_must_agree(name):
    for other in [A[:, :2]] + [A[:3]] * (name != "multi_positive_info_nce"):
        with pytest.raises(ValueError, match=r"must have shape \[[BN], D\] with [BD] = \d as in (a|queries), got"):
            PAIRWISE[name](b=other)


@pytest.mark.errors
@pytest.mark.parametrize("loss", [PAIRWISE["info_nce"], PAIRWISE["hard_contrastive"], lambda **o: losses.simple_contrastive(A, A, **o)])
def test_negatives_and_their_ids(loss):
    for options, message in (
        (dict(in_batch=False), r"negatives must be given where in_batch=False, got None"),
        (dict(negatives=A[:, :2]), r"negatives must have shape \[M, D\] with D = 3 as in queries, got \[4, 2\]"),
        (dict(negative_ids=IDS, ids=IDS), r"negative_ids needs negatives, got negatives=None"),
        (dict(negative_where=IDS > 0), r"negative_where needs negatives, got negatives=None"),
        (dict(negatives=A, negative_where=np.ones(3, bool)), r"negative_where must have shape \[M\] with M = 4 as in negatives, got \[3\]"),
        (dict(negatives_axis_name="data"), r"negatives_axis_name needs negatives, got negatives=None"),
        (dict(negatives_axis_name="data", negatives=A), r"negatives_axis_name='data' is not mapped here"),
        (dict(negatives=A, negative_ids=IDS), r"negative_ids needs ids"),
        (dict(key_ids=IDS), r"key_ids needs ids"),
        (dict(ids=IDS, key_ids=IDS[:3]), r"key_ids must have shape \[4\].*got \[3\]"),
        (dict(ids=IDS, negatives=A, negative_ids=IDS[:3]), r"negative_ids must have shape \[4\].*got \[3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(**options)


OF_LABELS = {
    "sup_con": lambda **o: losses.sup_con(A, IDS, temperature=1.0, **o),
    "triplet_margin": lambda **o: losses.triplet_margin(A, IDS, **({"margin": 1.0} | o)),
    "pairwise_contrastive": lambda **o: losses.pairwise_contrastive(A, IDS, **({"negative_margin": 1.0} | o)),
}
MEMORY = dict(references=A[:3], reference_labels=IDS[:3])


@pytest.mark.errors
@pytest.mark.parametrize("name", OF_LABELS)
def test_references_and_what_belongs_to_them(name):
    for options, message in (
        (dict(in_batch=False), r"references must be given where in_batch=False, got None"),
        (dict(reference_labels=IDS), r"reference_labels needs references, got references=None"),
        (dict(reference_where=IDS > 0), r"reference_where needs references, got references=None"),
        (dict(reference_ids=IDS, ids=IDS), r"reference_ids needs references, got references=None"),
        (dict(references_axis_name="data"), r"references_axis_name needs references, got references=None"),
        (MEMORY | dict(references_axis_name="data"), r"references_axis_name='data' is not mapped here"),
        (MEMORY | dict(references=A[:3, :2]), r"references must have shape \[M, D\] with D = 3 as in embeddings, got \[3, 2\]"),
        (MEMORY | dict(reference_labels=IDS), r"reference_labels must have shape \[3\].*got \[4\]"),
        (MEMORY | dict(reference_where=IDS > 0), r"reference_where must have shape \[M\] with M = 3 as in references, got \[4\]"),
        (MEMORY | dict(reference_ids=IDS[:3]), r"reference_ids needs ids"),
        (MEMORY | dict(reference_ids=IDS, ids=IDS), r"reference_ids must have shape \[3\].*got \[4\]"),
        (dict(where=np.ones(3, bool)), r"where must have shape \[B\].*got \[3\]"),
        (dict(block_size=0), r"block_size must be at least 1, got 0"),
        (dict(implementation="fast"), r"implementation must be one of .*got 'fast'"),
        (dict(collective="scatter"), r"collective must be one of .*got 'scatter'"),
        (dict(axis_name="data"), r"axis_name='data' is not mapped here"),
    ):
        with pytest.raises(ValueError, match=message):
            OF_LABELS[name](**options)
    for options, message in (
        (MEMORY | dict(reference_labels=None), r"reference_labels must be an array, got None"),
        (MEMORY | dict(reference_where=IDS[:3]), r"reference_where must have dtype bool, got int"),
        (dict(where=IDS), r"where must have dtype bool, got int"),
    ):
        with pytest.raises(TypeError, match=message):
            OF_LABELS[name](**options)


@pytest.mark.errors
def test_options_of_one_loss():
    for call, error, message in (
        (
            lambda: losses.info_nce(A, A, temperature=1.0, label_smoothing=1.5),
            ValueError,
            r"label_smoothing must be at least 0 and at most 1, got 1.5",
        ),
        (lambda: losses.info_nce(A, A, temperature=1.0, label_smoothing="no"), TypeError, r"label_smoothing must be a number, got 'no'"),
        (lambda: losses.info_nce(A, A, temperature=1.0, label_smoothing=A[:1, :1] / 2), ValueError, r"label_smoothing must have shape \[\], got"),
        (lambda: losses.hard_contrastive(A, A, k=4, temperature=1.0), ValueError, r"k must be at most the number of negatives, 3, got 4"),
        (lambda: losses.simple_contrastive(A, A, k=8, negatives=A), ValueError, r"k must be at most the number of negatives, 7, got 8"),
        (lambda: losses.simple_contrastive(A, A, k=0), ValueError, r"k must be at least 1, got 0"),
        (lambda: losses.simple_contrastive(A, A, k=1.0), TypeError, r"k must be an integer, got 1.0"),
        (lambda: losses.simple_contrastive(A, A, weight=IDS), ValueError, r"weight must have shape \[\]"),
        (lambda: losses.sigmoid_contrastive(A, A, temperature=1.0, bias=A), ValueError, r"bias must have shape \[\], got \[4, 3\]"),
        (lambda: losses.triplet_margin(A, IDS, margin=-1.0), ValueError, r"margin must be at least 0, got -1.0"),
        (lambda: losses.triplet_margin(A, IDS, margin=A), ValueError, r"margin must have shape \[\], got \[4, 3\]"),
        (lambda: losses.triplet_margin(A, IDS, margin="wide"), TypeError, r"margin must be a number, got 'wide'"),
        (lambda: losses.triplet_margin(A, IDS, margin=1.0, mining="semihard"), ValueError, r"mining must be one of .*did you mean 'semi_hard'"),
        (lambda: losses.triplet_margin(A, IDS, margin=1.0, distance="dot"), ValueError, r"distance must be one of 'euclidean', .*got 'dot'"),
        (lambda: losses.triplet_margin(A, IDS[:3], margin=1.0), ValueError, r"labels must have shape \[4\].*got \[3\]"),
        (lambda: losses.pairwise_contrastive(A, IDS, negative_margin=-1.0), ValueError, r"negative_margin must be at least 0, got -1.0"),
        (
            lambda: losses.pairwise_contrastive(A, IDS, negative_margin=1.0, positive_margin=-1.0),
            ValueError,
            r"positive_margin must be at least 0, got -1.0",
        ),
        (lambda: losses.pairwise_contrastive(A, IDS, negative_margin=1.0, distance="l2"), ValueError, r"distance must be one of .*got 'l2'"),
        (lambda: losses.debiased_info_nce(A, A, temperature=1.0, positive_prior=-0.1), ValueError, r"positive_prior must be at least 0, got -0.1"),
        (
            lambda: losses.debiased_info_nce(A, A, temperature=1.0, positive_prior=1.0),
            ValueError,
            r"1 - positive_prior must be greater than 0, got 0.0",
        ),
        (
            lambda: losses.hard_negative_info_nce(A, A, temperature=1.0, positive_prior=0.1, concentration=-1.0),
            ValueError,
            r"concentration must be at least 0, got -1.0",
        ),
        (
            lambda: losses.decoupled_info_nce(A, A, temperature=1.0, positive_weights=A[0]),
            ValueError,
            r"positive_weights must have shape \[B\] with B = 4 as in a, got \[3\]",
        ),
        (lambda: losses.negative_cosine(A, A[:3]), ValueError, r"targets must have the shape of predictions, \[4, 3\], got \[3, 3\]"),
        (lambda: losses.negative_cosine(A, None), TypeError, r"targets must be an array, got None"),
        (lambda: losses.entropy(A, where=IDS > 0), ValueError, r"where must have shape \[..., K\] with K = 3 as in logits, got \[4\]"),
        (lambda: losses.entropy(A, where=A[:2] > 0), ValueError, r"where must have the shape of logits, \[4, 3\], got \[2, 3\]"),
        (lambda: losses.entropy(IDS), TypeError, r"logits must have dtype float, got int32"),
        (lambda: losses.info_max(A[0]), ValueError, r"logits must have shape \[B, K\], got \[3\]"),
        (lambda: losses.info_max(A, axis_name="data"), ValueError, r"axis_name='data' is not mapped here"),
        (lambda: losses.barlow_twins(A, A[:3]), ValueError, r"b must have shape \[B, D\] with B = 4 as in a, got \[3, 3\]"),
        (lambda: losses.barlow_twins(A, A, epsilon=0.0), ValueError, r"epsilon must be greater than 0, got 0.0"),
        (lambda: losses.barlow_twins(A, A, off_diagonal_weight=A), ValueError, r"off_diagonal_weight must have shape \[\], got \[4, 3\]"),
        (lambda: losses.variance(A, epsilon=0.0), ValueError, r"epsilon must be greater than 0, got 0.0"),
        (lambda: losses.barlow_twins(A, A, epsilon=A), ValueError, r"epsilon must have shape \[\], got \[4, 3\]"),
        (lambda: losses.variance(A, epsilon=A[0]), ValueError, r"epsilon must have shape \[\], got \[3\]"),
        (lambda: losses.variance(A, target="one"), TypeError, r"target must be an array, got 'one'"),
        (lambda: losses.variance(A, axis_name="data"), ValueError, r"axis_name='data' is not mapped here"),
        (lambda: losses.covariance(A, where=np.ones(3, bool)), ValueError, r"where must have shape \[B\] with B = 4 as in features, got \[3\]"),
        (lambda: losses.covariance(A[0]), ValueError, r"features must have shape \[B, D\], got \[3\]"),
        (lambda: losses.sup_con(A, IDS[:3], temperature=1.0), ValueError, r"labels must have shape \[4\].*got \[3\]"),
        (lambda: losses.sup_con(A, None, temperature=1.0), TypeError, r"labels must be an array, got None"),
        (lambda: losses.soft_cross_entropy(A, None), TypeError, r"teacher must be an array, got None"),
        (lambda: losses.sup_con(A, IDS > 0, temperature=1.0), TypeError, r"labels must have dtype int, got bool"),
        (
            lambda: losses.multi_positive_info_nce(A, A, IDS, temperature=1.0, combine="insid"),
            ValueError,
            r"combine must be one of .*did you mean 'inside'",
        ),
        (lambda: losses.multi_positive_info_nce(A, A[:3], IDS, temperature=1.0), ValueError, r"key_labels must be given .*got None for 3 keys and 4"),
        (
            lambda: losses.multi_positive_info_nce(A, A, IDS, IDS, temperature=1.0, ids=IDS),
            ValueError,
            r"ids and key_ids must be given together, got ids",
        ),
        (lambda: losses.multi_positive_info_nce(A, A, IDS, temperature=1.0, key_where=IDS), TypeError, r"key_where must have dtype bool"),
        (lambda: losses.alignment(A, A[:3]), ValueError, r"b must have shape \[B, D\] with B = 4 as in a, got \[3, 3\]"),
        (lambda: losses.alignment(A, A, power=0.5), ValueError, r"power must be at least 1, got 0.5"),
        (lambda: losses.alignment(A, A, power=A[:1] + 1), ValueError, r"power must have shape \[\], got \[1, 3\]"),
        (lambda: losses.alignment(A, A, similarity="dot"), ValueError, r"similarity must be one of 'cosine', 'sqeuclidean', got 'dot'"),
        (lambda: losses.uniformity(A, t=0.0), ValueError, r"t must be greater than 0, got 0.0"),
        (lambda: losses.uniformity(A, similarity="dot"), ValueError, r"similarity must be one of 'cosine', 'sqeuclidean', got 'dot'"),
        (lambda: losses.uniformity(A, axis_name="data"), ValueError, r"axis_name='data' is not mapped here"),
        (lambda: losses.soft_cross_entropy(A, A[:3]), ValueError, r"teacher must have the shape of logits, \[4, 3\], got \[3, 3\]"),
        (lambda: losses.soft_cross_entropy(A, A, teacher_temperature=0), ValueError, r"teacher_temperature must be greater than 0, got 0.0"),
        (lambda: losses.soft_cross_entropy(A, A, temperature=A[0]), ValueError, r"temperature must have shape \[\], got \[3\]"),
        (lambda: losses.bounded_temperature(0.0, cap=0), ValueError, r"cap must be greater than 0"),
        (lambda: losses.bounded_temperature(0.0, cap=A), ValueError, r"cap must have shape \[\], got \[4, 3\]"),
        (lambda: losses.bounded_temperature(A), ValueError, r"log_scale must have shape \[\]"),
        (lambda: losses.bounded_temperature("hot"), TypeError, r"log_scale must be a number, got 'hot'"),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.errors
def test_grouped_info_nce_checks_its_lists():
    for options, message in (
        (dict(positives=A), r"positives must have shape \[B, P, D\], got \[4, 3\]"),
        (dict(negatives=LISTS[:3]), r"negatives must have shape \[B, M, D\] with B = 4 as in anchors, got \[3, 2, 3\]"),
        (dict(positive_weights=np.ones(3, np.float32)), r"positive_weights must have shape \[2\], got \[3\]"),
        (dict(negative_weights=np.ones((3, 2), np.float32)), r"negative_weights must have shape \[4, 2\], got \[3, 2\]"),
        (dict(negative_weights=-np.ones(2, np.float32)), r"negative_weights must be at least 0, got -1.0"),
        (dict(similarity="l2"), r"similarity must be one of .*got 'l2'"),
        (dict(combine="all"), r"combine must be one of .*got 'all'"),
        (dict(temperature=0), r"temperature must be greater than 0"),
        (dict(where=np.ones(3, bool)), r"where must have shape \[B\] with B = 4 as in anchors, got \[3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            grouped(**options)


@pytest.mark.errors
def test_mean_checks_its_weights_and_axis():
    for arguments, error, message in (
        ((A, A[0]), ValueError, r"weights must have the shape of values, \[4, 3\], got \[3\]"),
        ((A, None, "data"), ValueError, r"axis_name='data' is not mapped here"),
        ((A, "all"), TypeError, r"weights must be an array, got 'all'"),
        (([1.0],), TypeError, r"values must be an array, got list"),
        ((IDS,), TypeError, r"values must have dtype float, got int32"),
        ((losses.Masked(A, IDS[:1] > 0),), ValueError, r"values.where must have the shape of values, \[4, 3\], got \[1\]"),
    ):
        with pytest.raises(error, match=message):
            losses.mean(*arguments)


@pytest.mark.errors
def test_values_that_are_not_known_yet_are_not_judged():
    found = jax.jit(lambda t, w: (losses.info_nce(A, A, temperature=t), grouped(negative_weights=w)))(jnp.float32(0.5), jnp.ones(2))
    np.testing.assert_allclose(found, [np.full(4, np.log(4)), np.full(4, np.log(2))], rtol=1e-6)
