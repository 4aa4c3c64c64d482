"""The experiment at a tiny size: every arm, real graphs and the full scale from small files, and one step on four devices."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import core, data, encoders, losses, samplers

SCORES = {"accuracy", "NMI", "ARI", "F1"}
RNG = np.random.default_rng(0)
LABELS = np.arange(24) % 3
POINTS = (3 * np.eye(3)[LABELS] + RNG.normal(size=(24, 3))).astype(np.float32)


def tiny(config, **changes):
    return dataclasses.replace(config, **dict(neighbours=2, widths=(4,), features=2, pretraining=2, batch=8, epochs=min(config.epochs, 2)) | changes)


@pytest.fixture
def points(monkeypatch):
    monkeypatch.setattr(data, "load", lambda name: (POINTS, LABELS))


def check_results(results):
    assert {*SCORES, *(f"{name} of directions" for name in SCORES)} <= set(results)
    assert all(np.all(np.isfinite(value)) for value in results.values())


def test_arms_train_and_score(experiment, points):
    results = experiment.run(tiny(experiment.ARMS["refreshed in charge"], refresh=1), jax.random.key(0))
    check_results(results)
    assert results["accuracy over epochs"].shape == (2,) and results["best accuracy, by the labels"] >= results["accuracy"]
    check_results(experiment.run(tiny(experiment.ARMS["auto-encoder"]), jax.random.key(0)))


def test_every_arm_takes_a_step(experiment):
    edges = samplers.influence(*samplers.knn_graph(POINTS, 2)[:2], 24, 2)
    encoder = encoders.MLP((4,), 2)
    batch = {"features": POINTS, "index": jnp.arange(24), "where": jnp.ones(24, bool)} | edges._asdict()
    for config in {dataclasses.replace(config, epochs=1, alpha=0.5, beta=1.0, learning_rate=0.1) for config in experiment.ARMS.values()}:
        state = state_of(experiment, encoder, config)
        mapped = jax.vmap(partial(experiment.step, encoder, config), (None, 0, None), axis_name="data")
        new, seen = jax.eval_shape(mapped, state, jax.tree.map(lambda x: jnp.asarray(x)[None], batch), jax.random.key(0))
        assert seen["loss"].shape == (1,) and jax.tree.structure(new) == jax.tree.structure(state)


def state_of(experiment, encoder, config):
    import optax

    params = {"encoder": encoder.init(jax.random.key(0), POINTS), "centres": jax.random.normal(jax.random.key(1), (3, encoder.features))}
    return {"params": params, "opt": optax.adam(config.learning_rate).init(params), "members": jnp.array(LABELS)}


def test_the_objective_is_the_sum_of_its_terms(experiment):
    edges = samplers.influence(*samplers.knn_graph(POINTS, 2)[:2], 24, 2)
    encoder, config = encoders.MLP((4,), 2), experiment.Config(alpha=0.7, beta=3.0)
    batch = {"features": POINTS, "index": jnp.arange(24), "where": jnp.ones(24, bool)} | edges._asdict()
    params = state_of(experiment, encoder, config)["params"]

    @jax.jit
    def terms(params):
        z = encoder.apply(params["encoder"], POINTS)
        soft = losses.student_t_assign(z, params["centres"])
        divergence = losses.mean(losses.dec_kl(soft, losses.target_distribution(soft)))
        meta, members, alone = (
            losses.mean(losses.meta_node_contrast(z, labels, *edges, temperature=0.5, num_clusters=3))
            for labels in (jnp.argmax(soft, axis=1), LABELS, jnp.zeros(24, int))
        )
        return divergence, {
            "pamc": meta,
            "refresh": members,
            "positives": alone,
            "full": losses.mean(losses.graph_info_nce(z, *edges, temperature=0.5)),
            "none": 0.0,
        }

    divergence, contrasts = terms(params)
    for name, contrast in contrasts.items():
        changes = dict(refresh=3) if name == "refresh" else dict(contrast=name)
        objective = partial(experiment.objective, encoder=encoder, config=dataclasses.replace(config, **changes), members=jnp.array(LABELS))
        found = jax.vmap(lambda batch, objective=objective: objective(params, batch=batch), axis_name="data")(
            jax.tree.map(lambda x: jnp.asarray(x)[None], batch)
        )
        np.testing.assert_allclose(found[0], 0.7 * contrast + 3 * divergence, rtol=1e-4, atol=1e-5)


def test_a_step_costs_what_is_measured(experiment, points):
    results = experiment.run(tiny(experiment.ARMS["cost"]), jax.random.key(0))
    assert set(results) == {"ms a step, none", "ms a step, pamc", "ms a step, full", "full / pamc"}
    assert results["full / pamc"] == results["ms a step, full"] / results["ms a step, pamc"] > 0


def test_cost_is_the_least_processor_time_of_ten_turns_after_the_first(experiment, monkeypatch):
    took = RNG.permutation(np.arange(33)) + 1.0
    clock = [*(100.0 * n for n in range(3)), *np.concatenate([[100 * n, 100 * n + took[n]] for n in range(3, 33)])]  # the first turn compiles
    monkeypatch.setattr(experiment, "time", SimpleNamespace(process_time=iter(clock).__next__))
    monkeypatch.setattr(experiment.jax, "jit", lambda program: lambda *arguments: jnp.zeros(()))
    found = experiment.cost(encoders.MLP((4,), 2), experiment.Config(), {}, {})
    none, meta, full = took.reshape(11, 3)[1:].min(axis=0)
    assert [found[f"ms a step, {name}"] for name in ("none", "pamc", "full")] == pytest.approx([1e3 * none, 1e3 * meta, 1e3 * full])
    assert found["full / pamc"] == pytest.approx(full / meta)


def test_scores_are_those_of_the_best_matching(experiment):
    found = experiment.scores(np.array([5, 5, 7, 7, 7, 9]), np.array([0, 0, 1, 1, 0, 1]))
    np.testing.assert_allclose(found["accuracy"], 4 / 6)
    np.testing.assert_allclose(found["F1"], (2 * 2 / (2 + 3) + 2 * 2 / (3 + 3)) / 2)
    perfect = experiment.scores(np.array([2, 2, 0]), np.array([0, 0, 1]))
    assert set(perfect) == SCORES and all(value == 1 for value in perfect.values())


def test_meta_nodes_are_refreshed_from_where_they_were(experiment):
    encoder = encoders.MLP((), 3)
    params = {"encoder": {"params": {"Dense_0": {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}}}, "centres": jnp.zeros((3, 3))}
    wrong = np.where(np.arange(24) == 4, (LABELS + 1) % 3, LABELS)
    state, seen = experiment.refresh(encoder, POINTS * 2, jax.random.key(0), {"params": params, "members": jnp.array(wrong)})
    unit = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
    start = np.stack([unit[wrong == j].mean(0) for j in range(3)])
    np.testing.assert_array_equal(state["members"], core.kmeans(jax.random.key(0), unit, 3, centres=start).labels)
    assert seen == {} and np.mean(np.asarray(state["members"]) == LABELS) > 0.85


def test_the_connectome_is_its_own_graph(experiment, monkeypatch):
    synapses = np.zeros((4, 4), np.float32)
    synapses[0, 1], synapses[2, 1], synapses[3, 3] = 5, 2, 9
    monkeypatch.setattr(data, "load", lambda name: (synapses, np.array([0, 1, 0, 1])))
    features, labels, edges = experiment.graph(experiment.Config(data="connectome", order=1))
    np.testing.assert_allclose(features[0], np.log1p([0, 5, 0, 0, 0, 0, 0, 0]), rtol=1e-6)
    found = {(int(i), int(j)): float(w) for i, j, w in zip(*edges, strict=True) if w}
    assert set(found) == {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 3)} and found[3, 3] == 1


def test_packages_are_a_graph(experiment, monkeypatch):
    packages = data.Graph(POINTS, LABELS, np.array([[0, 3], [3, 6]]))
    monkeypatch.setattr(data, "package_graph", lambda: packages)
    features, labels, edges = experiment.graph(experiment.Config(data="debian", order=1))
    np.testing.assert_array_equal(features, POINTS)
    found = {(int(i), int(j)) for i, j, w in zip(*edges, strict=True) if w and i != j}
    assert found == {(0, 3), (3, 0), (3, 6), (6, 3)} and labels is LABELS


@pytest.mark.parametrize("joined", (True, False))
def test_full_trains_on_files_of_a_folder(experiment, monkeypatch, tmp_path, joined):
    folder = tmp_path / "sdcn"
    folder.mkdir()
    np.savetxt(folder / "usps.txt", POINTS)
    np.savetxt(folder / "usps_label.txt", LABELS, fmt="%d")
    if joined:
        np.savetxt(folder / "usps_graph.txt", [[0, 3], [3, 6]], fmt="%d")
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    features, labels, edges = experiment.graph(experiment.FULL)
    np.testing.assert_allclose(features, POINTS, rtol=1e-6)
    np.testing.assert_array_equal(labels, LABELS)
    assert (3, 0) in set(zip(edges.rows.tolist(), edges.columns.tolist(), strict=True))
    assert (np.sum(edges.weights[edges.rows == 23] > 0) == 1) == joined  # else the last node has near ones
    if joined:
        check_results(experiment.run(tiny(experiment.FULL, widths=(4,), epochs=1), jax.random.key(0)))
    else:
        with pytest.raises(ValueError, match="needs the file .*acm.txt, which is not there"):
            experiment.graph(dataclasses.replace(experiment.FULL, data="acm"))


@pytest.mark.parametrize("contrast", ("pamc", "full"))
def test_four_devices_take_the_step_of_one(experiment, contrast):
    edges = samplers.influence(*samplers.knn_graph(POINTS, 2)[:2], 24, 2, multiple=4)
    encoder, config = encoders.MLP((4,), 2), experiment.Config(contrast=contrast)
    batch = {"features": POINTS, "index": np.arange(24), "where": np.arange(24) < 22} | edges._asdict()
    batch["weights"] = np.where((edges.rows < 22) & (edges.columns < 22), edges.weights, 0)
    state, after = state_of(experiment, encoder, config), []
    for devices in (1, 4):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P()), out_specs=(jax.P(), jax.P()), check_vma=False)
        after.append(jax.jit(jax.shard_map(partial(experiment.step, encoder, config), mesh=mesh, **specs))(state, batch, jax.random.key(2)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), *after)
    moved = jax.tree.map(lambda new, old: not np.allclose(new, old, atol=1e-6), after[0][0]["params"], state["params"])
    assert all(jax.tree.leaves(moved))


def test_claims_and_figures_read_what_run_returns(experiment):
    one = dict.fromkeys(SCORES | {f"{name} of directions" for name in SCORES}, 0.5)
    results = {arm: dict(one) for arm in experiment.ARMS} | {"cost": {"full / pamc": 4.0}}
    values = [claim.of(results) for claim in experiment.CLAIMS]
    assert values == [0] * 6 + [4.0] + [0] * 4
    entry = lambda value: {"mean": value, "interval": None, "values": [value]}  # noqa: E731
    arm = {name: entry(0.5) for name in one} | {f"{name} over epochs": entry([0.1, 0.2]) for name in ("accuracy", "NMI")}
    drawn = experiment.figures({"arms": {"pamc": arm, "full": arm, "cost": {}}})
    assert set(drawn) == {"scores", "epochs"} and len(drawn["scores"].axes[0].get_yticks()) == 2
    assert set(experiment.figures({"arms": {"cost": {"full / pamc": entry(2.5)}}, "claims": []})) == {"scores"}
