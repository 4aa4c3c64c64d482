"""The retriever's objectives against a ranker: the worked numbers of the specification, gradients, masks, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses

G, D = np.float32([[2, 1, 0], [0.5, 1.5, -1]]), np.float32([[3, 1, -1], [0, 2, 1]])


def paper(g, d, where=None, temperature=1.0):
    return losses.adversarial_retriever(g, d, temperature=temperature, where=where)


def code(g, d, where=None, temperature=1.0):
    return losses.adversarial_retriever(g, d, temperature=temperature, form="code", where=where)


@jax.jit
def every(g, d, where, temperature):
    """Values and gradients, to both sides, of both forms in one program."""

    def one(loss):
        total = lambda g, d: (jnp.sum(loss(g, d, where, temperature)), loss(g, d, where, temperature))  # noqa: E731
        gradients, values = jax.grad(total, argnums=(0, 1), has_aux=True)(g, d)
        return values, gradients

    return {"paper": one(paper), "code": one(code)}


def of(g=G, d=D, where=np.ones((2, 3), bool), temperature=1.0):  # noqa: B008
    return jax.device_get(every(g, d, where, temperature))


def reference(g, d, form, where=None, temperature=1.0):
    values = []
    for i, (s, t) in enumerate(zip(np.float64(g), np.float64(d) / temperature, strict=True)):
        kept = np.ones(len(s), bool) if where is None else where[i].copy()
        if not kept[0] or not kept[1:].any():
            values.append(0.0)
            continue
        r = -np.log1p(np.exp(-(t[0] - t)))
        kept[0] = form == "code"
        p = np.exp(s[kept]) / np.exp(s[kept]).sum()
        values.append((p * r[kept]).sum() if form == "paper" else (r[kept] * np.log(p)).sum())
    return np.array(values)


def test_the_papers_form_and_its_gradient():
    values, (g, d) = of()["paper"]
    np.testing.assert_allclose(values, [-0.097673, -2.065205], atol=1e-6)
    np.testing.assert_allclose(values.mean(), -1.081439, atol=1e-6)
    np.testing.assert_allclose(g / 2, [[0, -0.010694, 0.010694], [0, -0.028521, 0.028521]], atol=1e-6)
    assert (g[:, 0] == 0).all() and (d == 0).all()


def test_the_released_form_and_its_gradient():
    values, (g, d) = of()["code"]
    np.testing.assert_allclose(values.sum(), 6.016891, atol=1e-5)
    r = -np.log1p(np.exp(-(np.float64(D[:, :1]) - D)))
    p = np.exp(np.float64(G)) / np.exp(np.float64(G)).sum(1, keepdims=True)
    np.testing.assert_allclose(g, r - p * r.sum(1, keepdims=True), atol=1e-5)
    assert (d == 0).all()


def test_both_forms_mixed_with_the_distillation():
    @jax.jit
    @jax.value_and_grad
    def mixture(g):
        return 0.5 * jnp.sum(code(g, D)) + 0.5 * losses.mean(losses.soft_cross_entropy(g, D))

    value, gradient = mixture(G)
    np.testing.assert_allclose(value, 3.415960, atol=1e-5)
    np.testing.assert_allclose(gradient, [[-0.118156, 0.070959, 0.047197], [0.218695, 0.367967, -0.586662]], atol=1e-5)
    distilled = losses.mean(losses.soft_cross_entropy(G, D))
    np.testing.assert_allclose(distilled, 0.815030, atol=1e-6)
    np.testing.assert_allclose(0.5 * of()["code"][0].mean() + 0.5 * distilled, 1.911738, atol=1e-5)


def test_the_ranker_learns_by_the_listwise_cross_entropy_which_bounds_the_game():
    ones = np.ones((2, 1), np.float32)
    listwise = lambda d: losses.grouped_info_nce(ones, d[:, :1, None], d[:, 1:, None], temperature=1.0, similarity="dot")  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(lambda d: losses.mean(listwise(d))))(D)
    np.testing.assert_allclose(value, 1.275269, atol=1e-6)
    np.testing.assert_allclose(gradient, [[-0.066593, 0.058655, 0.007938], [-0.454985, 0.332620, 0.122364]], atol=1e-6)
    np.testing.assert_allclose(-listwise(D), [-0.142932, -2.407606], atol=1e-6)
    assert (-np.asarray(listwise(D)) <= of()["paper"][0]).all()


def test_constants_change_nothing_and_negatives_may_be_permuted():
    plain, moved, swapped = of(), of(G + np.float32([[5], [-3]]), D - np.float32([[1], [2]])), of(G[:, [0, 2, 1]], D[:, [0, 2, 1]])
    for form in plain:
        np.testing.assert_allclose(moved[form][0], plain[form][0], atol=1e-5)
        np.testing.assert_allclose(moved[form][1][0], plain[form][1][0], atol=1e-5)
        np.testing.assert_allclose(swapped[form][0], plain[form][0], atol=1e-6)
        np.testing.assert_allclose(swapped[form][1][0], plain[form][1][0][:, [0, 2, 1]], atol=1e-6)


def test_missing_candidates_count_nowhere_whatever_they_hold():
    where = np.array([[True, True, False], [False, True, True]])
    g, d = np.where(where, G, np.nan), np.where(where, D, np.nan)
    for form, (values, (gradient, _)) in of(g, d, where).items():
        np.testing.assert_allclose(values, reference(G, D, form, where), atol=1e-6)
        assert np.isfinite(gradient).all() and (gradient[~where] == 0).all() and (gradient[1] == 0).all()
    lonely = of(where=np.array([[True, False, False], [True, True, True]]))
    assert lonely["paper"][0][0] == lonely["code"][0][0] == 0


def test_with_one_negative_the_papers_form_has_no_gradient_and_the_released_one_has():
    one = of(where=np.array([[True, True, False]] * 2))
    np.testing.assert_allclose(one["paper"][1][0], 0, atol=1e-7)
    assert (np.abs(one["code"][1][0][:, :2]) > 0.01).all()


def test_temperature_divides_the_rankers_scores_and_extremes_stay_finite():
    for temperature in (0.05, 3.0):
        for form, (values, _) in of(temperature=temperature).items():
            np.testing.assert_allclose(values, reference(G, D, form, temperature=temperature), rtol=1e-5, atol=1e-6)
    for form, (values, (gradient, _)) in of(1e4 * G, 1e4 * D).items():
        assert np.isfinite(values).all() and np.isfinite(gradient).all(), form
    for values, _ in of(G + np.float32([[0, np.nan, 0], [0, 0, 0]])).values():
        assert np.isnan(values).tolist() == [True, False]


def test_bfloat16_is_computed_in_float32_and_rows_may_be_mapped():
    narrow = losses.adversarial_retriever(jnp.asarray(G, jnp.bfloat16), D)
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, reference(G, D, "paper"), atol=1e-5)  # these numbers are exact in bfloat16
    np.testing.assert_allclose(jax.vmap(lambda g, d: paper(g[None], d[None])[0])(G, D), reference(G, D, "paper"), atol=1e-6)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: losses.adversarial_retriever(G, D[:, :2]), ValueError, r"ranker_scores must have shape \[B, M\] with M = 3 as in scores"),
        (lambda: losses.adversarial_retriever(G, D, form="papr"), ValueError, "form must be one of 'paper', 'code', got 'papr'; did you mean"),
        (lambda: losses.adversarial_retriever(G, D, temperature=0.0), ValueError, "temperature must be greater than 0, got 0.0"),
        (lambda: losses.adversarial_retriever(G[:, :1], D[:, :1]), ValueError, "the number of candidates must be at least 2, got 1"),
        (lambda: losses.adversarial_retriever(G, D, where=np.ones((2, 3))), TypeError, "where must have dtype bool"),
        (lambda: losses.adversarial_retriever(G.astype(int), D), TypeError, "scores must have dtype float"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
