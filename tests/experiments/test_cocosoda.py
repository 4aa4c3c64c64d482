"""The experiment at a tiny size: the worked numbers of its blocks, the order within a step, what augmentation touches, every kind of arm, full."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cljax import core, data, encoders, losses
from cljax.memory.queues import QueueState

METRICS = {"MRR", "R@1", "R@5", "R@10", "alignment", "uniformity"}
NAMES = "code", "query", "code view", "query view"
ROWS = {
    "code": [[1, 0, 0], [0, 1, 0]],
    "query": [[0.9, 0.1, 0], [0.2, 1, 0.1]],
    "code view": [[1, 0.1, 0.1], [0.1, 1, 0]],
    "query view": [[0.8, 0.2, 0.1], [0, 1, 0.3]],
}
QUEUES = {
    "code": [[0, 0, 1], [1, 1, 0]],
    "query": [[0, 1, 1], [-1, 0, 0]],
    "code view": [[1, 0, 1], [0, -1, 0]],
    "query view": [[0.5, 0.5, 0.5], [0, 0, -1]],
}
BLOCKS = {0.07: [0.010642, 0.004212, 0.080426, 0.007669, 0.008696, 0.022085], 1.0: [0.805901, 0.915804, 0.979419, 0.835209, 0.789750, 0.959731]}


FUNCTIONS = [("gives the area of a square", "side * side"), ("gives the length of an edge", "self.edge"), ("reads all lines", "open(path)")]
FUNCTIONS += [("closes the file at once", "file.close()"), ("splits a text into words", "text.split(' ')")]


@pytest.fixture
def library(monkeypatch):
    """A standard library of five functions."""
    queries = [[(word, "comment") for word in query.split()] for query, _ in FUNCTIONS]
    codes = [data.typed_pieces(data.python_tokens(code)) for _, code in FUNCTIONS]

    def described(test, *, key, hide_name):
        return data.CodeSearch(queries[test:], codes[test:], queries[:test], codes[:test], np.arange(test))

    monkeypatch.setattr(data, "described_functions", described)


def tiny(config, **changes):
    sizes = dict(test=2, code_length=12, query_length=8, vocabulary=40, width=8, batch=2, steps=4, queue=min(config.queue, 6))
    return dataclasses.replace(config, **sizes | changes)


def unit(rows):
    return core.safe_normalize(jnp.array(rows, jnp.float32))


SEEN, FILLED = ({name: unit(rows) for name, rows in table.items()} for table in (ROWS, QUEUES))


def check_results(results, calls=4):
    assert set(results) == METRICS | {"loss"} | {f"{name} over steps" for name in METRICS}
    assert all(np.all(np.isfinite(value)) for value in results.values())
    assert all(results[f"{name} over steps"].shape == (calls,) for name in METRICS)


@pytest.fixture(scope="module")
def compared(experiment):
    @jax.jit
    def compared(config, seen, queues):
        """The values of the blocks, `[blocks, B]`."""
        queues = {name: QueueState(keys, jnp.int32(0)) for name, keys in queues.items()}
        compare = jax.vmap(partial(experiment.compare, config), (0, None), axis_name="data")
        return compare({name: rows[None] for name, rows in seen.items()}, queues).reshape(-1, len(seen["code"]))

    return compared


def mesh(devices):
    return jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


@pytest.mark.parametrize("temperature", BLOCKS)
def test_worked_numbers_of_the_six_blocks(experiment, compared, temperature):
    config = experiment.Config(temperature=temperature)
    np.testing.assert_allclose(compared(config, SEEN, FILLED).mean(axis=1), BLOCKS[temperature], atol=2e-6)
    inter = compared(dataclasses.replace(config, blocks="inter"), SEEN, FILLED)
    np.testing.assert_allclose(inter.mean(axis=1), BLOCKS[temperature][:4], atol=2e-6)


def test_multiplying_the_logits_divides_the_temperature(experiment, compared):
    assert np.all(compared(experiment.Config(logit_multiplier=20.0), SEEN, FILLED) < 1e-6)
    config = experiment.Config(temperature=1.4, logit_multiplier=20.0)
    np.testing.assert_allclose(compared(config, SEEN, FILLED), compared(experiment.Config(), SEEN, FILLED), atol=1e-6)


def test_without_a_queue_and_views_the_inter_blocks_are_symmetric_info_nce(experiment, compared):
    seen, config = {name: SEEN[name.split()[0]] for name in NAMES}, experiment.Config(blocks="inter")
    value = compared(config, seen, {})
    expected = losses.symmetric_info_nce(SEEN["code"], SEEN["query"], temperature=0.07)
    np.testing.assert_allclose(np.mean(value), np.mean(expected), atol=1e-6)
    assert np.all(compared(config, seen, FILLED) >= value - 1e-7)  # a queue never lowers a block
    turned = {name: keys[::-1] for name, keys in FILLED.items()}
    np.testing.assert_allclose(compared(config, seen, turned), compared(config, seen, FILLED), atol=1e-6)


def texts(experiment, rows=8):
    """A batch of codes and queries, ids from 3 to 19, types 20 to 26, the first place of a text special."""
    draw = np.random.default_rng(0)
    batch = {"index": np.arange(rows)}
    for name, length in (("code", 12), ("query", 8)):
        mask = np.arange(length) < draw.integers(4, length, (rows, 1))
        eligible = mask & (np.arange(length) > 0)
        ids, types = draw.integers(3, 20, (rows, length)), draw.integers(20, 27, (rows, length))
        batch[name] = data.TypedTokens(np.where(mask, ids, 0).astype(np.int32), mask, np.where(eligible, types, -1).astype(np.int32))
    return batch


@pytest.fixture(scope="module")
def setting(experiment):
    config = tiny(experiment.Config(), vocabulary=20)
    model = encoders.DeepAveraging(20 + experiment.TYPES, config.width, normalise=True)
    batch = texts(experiment)
    params = jax.jit(model.init)(jax.random.key(0), batch["code"].ids, batch["code"].mask)
    state = experiment.init(config, model, jax.random.key(1), params)
    state["averages"] = state["averages"]._replace(params=jax.tree.map(lambda leaf: leaf + 0.1, params))
    return config, model, state, batch


@pytest.fixture(scope="module")
def stepped(experiment, setting):
    """The loss, its gradient and the memories after the step of a config on some devices: one program for each number of them."""
    _, model, *inputs = setting

    def value(params, config, variables, batch, key):
        loss, _, changed = experiment.contrast(model, config, {**variables, "params": params}, batch, key)
        return loss, changed

    def step(config, variables, batch, key):
        (loss, changed), grads = jax.value_and_grad(value, has_aux=True)(variables["params"], config, variables, batch, key)
        return {"loss": loss, "grads": jax.lax.pmean(grads, "data"), **changed}

    @partial(jax.jit, static_argnums=0)
    def stepped(devices, config):
        specs = dict(in_specs=(jax.P(), jax.P(), jax.P("data"), jax.P()), out_specs=jax.P(), check_vma=False)
        return jax.shard_map(step, mesh=mesh(devices), **specs)(config, *inputs, jax.random.key(2))

    return stepped


def test_the_momentum_encoder_moves_first_and_the_queues_are_filled_last(experiment, setting, stepped, compared):
    config, model, state, batch = setting
    after = stepped(1, config)
    moved = jax.tree.map(lambda old, new: config.momentum * old + (1 - config.momentum) * new, state["averages"].params, state["params"])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), after["averages"].params, moved)
    k_view = jax.random.split(jax.random.key(2), 3)[0]
    changed = dict(zip(NAMES[2:], experiment.augment(config, batch["code"], batch["query"], 0, k_view, batch["index"]), strict=True))
    apply = jax.jit(model.apply)
    seen = {name: apply(state["params"], batch[name].ids, batch[name].mask) for name in NAMES[:2]}
    seen |= {name: apply(moved, changed[name].ids, changed[name].mask) for name in NAMES[2:]}
    for name in NAMES:  # 8 rows into 6 slots: the last 6, the first of them in slot 2
        np.testing.assert_allclose(after["queues"][name].keys, np.roll(seen[name][2:], 2, axis=0), atol=1e-5)
    old = {name: queue.keys for name, queue in state["queues"].items()}

    def loss(params):  # the views and the queues are constants
        clean = {name: model.apply(params, batch[name].ids, batch[name].mask) for name in NAMES[:2]}
        return jnp.mean(compared(config, seen | clean, old))

    value, grads = jax.jit(jax.value_and_grad(loss))(state["params"])
    np.testing.assert_allclose(after["loss"], value, rtol=1e-4)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), after["grads"], grads)


def test_gradients_are_clipped_and_the_rate_falls_to_nothing(experiment, setting):
    config, _, state, _ = setting
    grads = jax.tree.map(jnp.ones_like, state["params"])
    _, opt = experiment.optimiser(config).update(grads, experiment.optimiser(config).init(state["params"]), state["params"])
    expected = 0.1 / optax.tree.norm(grads)  # Adam's first average of the clipped gradient
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), opt[1][0].mu, jax.tree.map(lambda leaf: leaf * expected, grads))
    rates, opt, weight = [], experiment.optimiser(config).init(jnp.zeros(1)), jnp.zeros(1)
    for _ in range(config.steps + 1):
        update, opt = experiment.optimiser(config).update(jnp.ones(1), opt, weight)
        rates.append(float(-update[0]) / config.learning_rate)
    np.testing.assert_allclose(rates, [1, 0.75, 0.5, 0.25, 0], atol=1e-4)


def test_four_devices_take_the_step_of_one(setting, stepped):
    after = [stepped(devices, setting[0]) for devices in (1, 4)]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-5), *after)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_momentum_encoder_follows_at_once_or_never(setting, stepped, momentum):
    config, _, state, _ = setting
    after = stepped(1, dataclasses.replace(config, momentum=momentum))
    expected = state["averages"].params if momentum else state["params"]  # those before the step: it moves first
    jax.tree.map(np.testing.assert_array_equal, after["averages"].params, expected)


def test_augmentation_leaves_special_tokens_and_padding(experiment):
    batch = texts(experiment)
    for soda in ("random", "cycle"):
        config = experiment.Config(vocabulary=20, rate=1.0, soda=soda)
        for t in range(4):
            code, query = experiment.augment(config, batch["code"], batch["query"], t, jax.random.key(t), batch["index"])
            for old, new in ((batch["code"], code), (batch["query"], query)):
                assert np.all((new.ids == old.ids) | (old.types >= 0))
            kept = bool(np.all(query.ids == batch["query"].ids))
            assert kept == (soda == "cycle" and t > 0)  # then the query is masked where the code is
    off = experiment.augment(experiment.Config(soda="off"), batch["code"], batch["query"], 0, jax.random.key(0), batch["index"])
    assert off == (batch["code"], batch["query"])


def test_copied_types_replace_hardly_anything(experiment):
    batch = texts(experiment)
    config = experiment.Config(vocabulary=20, rate=1.0, soda="cycle", copied_types=True)
    for t, changed in ((0, True), (1, False), (2, False), (3, False)):
        code, _ = experiment.augment(config, batch["code"], batch["query"], t, jax.random.key(0), batch["index"])
        assert np.any(code.ids != batch["code"].ids) == changed


@pytest.mark.parametrize("arm", ["full", "in-batch"])
def test_an_arm_trains(experiment, library, arm):
    check_results(experiment.run(tiny(experiment.ARMS[arm]), jax.random.key(0)))


def test_no_steps_are_refused(experiment, library):
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        experiment.run(tiny(experiment.ARMS["full"], steps=0), jax.random.key(0))


def test_the_released_step_traces(experiment, setting):
    _, model, state, batch = setting
    config = tiny(experiment.ARMS["as released"], vocabulary=20)
    step = jax.vmap(partial(experiment.contrast, model, config), (None, 0, None), axis_name="data")
    loss, _, changed = jax.eval_shape(step, state, jax.tree.map(lambda leaf: leaf[None], batch), jax.random.key(0))
    assert loss.shape == (1,) and set(changed) == {"t", "averages", "queues"}


def test_words_alone_are_a_baseline(experiment, library):
    results = experiment.run(tiny(experiment.ARMS["bm25"]), jax.random.key(0))
    assert set(results) == METRICS - {"alignment", "uniformity"} and 0 < results["MRR"] <= 1


def test_rank_counts_ties_against(experiment):
    found = experiment.quality(jnp.array([[0.5, 0.9, 0.5, 0.1]]), jnp.arange(4)[None], jnp.array([2]))
    assert {name: round(float(value), 4) for name, value in found.items()} == {"MRR": 0.3333, "R@1": 0, "R@5": 1, "R@10": 1}


def test_full_trains_on_several_languages_and_fine_tunes_each(experiment, monkeypatch, tmp_path):
    config = tiny(experiment.FULL, languages=("go", "python"), batch=4, code_length=10, query_length=8, fine_tuning_epochs=1)
    for n, language in enumerate(config.languages):
        folder = tmp_path / config.data / language
        folder.mkdir(parents=True)
        words = ["read", "file", "close", "open", "line", "sort", "list", "max"]
        rows = [{"code_tokens": ["func", word, "(", f"{n}", ")"], "docstring_tokens": ["Does", word], "url": word} for word in words]
        for part, chosen in (("train", rows), ("test", rows[:3]), ("codebase", rows[::-1])):
            (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    tokenizer = data.train_tokenizer(["does func read file close open line sort list max ( ) 0 1"], 80)
    module = encoders.TextTransformer(tokenizer.get_vocab_size(), 8, layers=1, heads=2, max_length=16, types=2)
    params = jax.jit(module.init)(jax.random.key(0), jnp.ones((1, 4), jnp.int32))
    encoders.save_pretrained(tmp_path / config.encoder, module, params, tokenizer)
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    check_results(experiment.run(config, jax.random.key(0)))
    corpora = experiment.corpora_of(config, None)
    assert [corpus.known_codes[0][0] for corpus in corpora] == [("func", "keyword"), ("func", "identifier")]


def test_claims_and_figures_read_what_run_returns(experiment):
    results = {arm: dict.fromkeys(METRICS, 0.2) for arm in experiment.ARMS}
    assert all(isinstance(float(claim.of(results)), float) for claim in experiment.CLAIMS)
    assert experiment.CLAIMS[0].of(results) == pytest.approx(0.2 / 0.010177, rel=1e-3)
    entry = {"mean": 0.2, "interval": [0.1, 0.3], "values": [0.1, 0.3]}
    curve = {"mean": [0.2] * 4, "interval": [[0.1, 0.3]] * 4, "values": [[0.1] * 4, [0.3] * 4]}
    found = dict.fromkeys(METRICS, entry) | {f"{name} over steps": curve for name in METRICS}
    assert set(experiment.figures({"arms": {arm: found for arm in experiment.ARMS}})) == {"retrieval", "training"}
