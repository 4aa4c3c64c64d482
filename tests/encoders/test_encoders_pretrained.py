"""Folders of pretrained models: what is read is what BERT's formulas say, what is written is read back bit for bit, and nothing goes unseen."""

import importlib
import json
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import erf

from cljax import data, encoders, metrics

pretrained = importlib.import_module("cljax.encoders.pretrained")
IDS = np.array([[2, 5, 7, 3, 0, 0], [2, 9, 9, 4, 8, 3]])
MASK = np.arange(6) < np.array([4, 6])[:, None]
TOKENIZER = data.train_tokenizer(["to be or not to be, that is the question"], 20, kind="words")


def bert(tensors, ids, mask, layers, heads):
    """The last states `[B, L, D]`, in numpy and float64, of tensors by the names of a BertModel's file."""
    t = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}

    def dense(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * t[f"{name}.weight"] + t[f"{name}.bias"]

    def split(x):
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    embedded = t["embeddings.word_embeddings.weight"][ids] + t["embeddings.position_embeddings.weight"][: ids.shape[1]]
    states = norm(embedded + t["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for i in range(layers):
        block = f"encoder.layer.{i}"
        queries, keys, values = (split(dense(states, f"{block}.attention.self.{name}")) for name in ("query", "key", "value"))
        scores = queries @ keys.transpose(0, 1, 3, 2) / np.sqrt(queries.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True)) * mask[:, None, None, :]
        mixed = (weights / weights.sum(-1, keepdims=True)) @ values
        change = dense(mixed.transpose(0, 2, 1, 3).reshape(states.shape), f"{block}.attention.output.dense")
        states = norm(states + change, f"{block}.attention.output.LayerNorm")
        hidden = dense(states, f"{block}.intermediate.dense")
        states = norm(states + dense(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, f"{block}.output.dense"), f"{block}.output.LayerNorm")
    return states


def mean(states, mask):
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def tensors_of(places=10, types=2):
    """A model of two layers, width 8, as a BertModel names it."""
    rng = np.random.default_rng(0)
    rows = {"word_embeddings": 20, "position_embeddings": places, "token_type_embeddings": types}
    shapes = {f"embeddings.{name}.weight": (size, 8) for name, size in rows.items()}
    norms = ["embeddings.LayerNorm"]
    for i in range(2):
        block = f"encoder.layer.{i}"
        sizes = {f"attention.self.{name}": (8, 8) for name in ("query", "key", "value")} | {"attention.output.dense": (8, 8)}
        for name, size in (sizes | {"intermediate.dense": (12, 8), "output.dense": (8, 12)}).items():
            shapes |= {f"{block}.{name}.weight": size, f"{block}.{name}.bias": size[:1]}
        norms += [f"{block}.attention.output.LayerNorm", f"{block}.output.LayerNorm"]
    shapes |= {f"{norm}.{name}": (8,) for norm in norms for name in ("weight", "bias")}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


TENSORS = tensors_of()
CONFIG = dict(
    model_type="bert",
    vocab_size=20,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=10,
    type_vocab_size=2,
    hidden_dropout_prob=0.1,
    layer_norm_eps=1e-12,
    hidden_act="gelu",
)
DISTIL = {"attention.self.query": "attention.q_lin", "attention.self.key": "attention.k_lin", "attention.self.value": "attention.v_lin"}
DISTIL |= {"attention.output.dense": "attention.out_lin", "attention.output.LayerNorm": "sa_layer_norm", "encoder.layer": "transformer.layer"}
DISTIL |= {"intermediate.dense": "ffn.lin1", "output.dense": "ffn.lin2", "output.LayerNorm": "output_layer_norm"}


@pytest.fixture
def folder(tmp_path):
    """`folder(tensors, config, others)` makes a folder of these, `others` further files and their JSON."""

    def make(tensors=TENSORS, config=CONFIG, **others):
        place = tmp_path / "model"
        shutil.rmtree(place, ignore_errors=True)
        (place / "1_Pooling").mkdir(parents=True)
        TOKENIZER.save(str(place / "tokenizer.json"))
        for name, content in ({"config": config} | others).items():
            (place / f"{name.replace('__', '/')}.json").write_text(json.dumps(content))
        if tensors is not None:
            save_file(tensors, place / "model.safetensors")
        return place

    return make


def modules(*names):
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    return [{"idx": i, "name": str(i), "path": paths.get(name, name), "type": f"sentence_transformers.models.{name}"} for i, name in enumerate(names)]


@pytest.fixture(scope="module")
def apply():
    programs = {}

    def apply(module, params, ids=IDS, mask=MASK):
        program = programs.setdefault(module, jax.jit(lambda params, ids, mask: module.apply(params, ids, mask)))
        return np.asarray(program(params, ids, mask))

    return apply


EXPECTED = mean(bert(TENSORS, IDS, MASK, 2, 2), MASK)


def test_a_folder_gives_the_module_and_the_values_of_its_tensors(folder, apply):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module, params, tokenizer = encoders.load_pretrained(folder())
    expected = dict(vocab_size=20, features=8, layers=2, heads=2, hidden=12, max_length=10, types=2, dropout=0.1)
    assert module == encoders.TextTransformer(**expected)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(tensor.size for tensor in TENSORS.values())
    assert (tokenizer.truncation["max_length"], tokenizer.padding) == (10, None)
    np.testing.assert_allclose(apply(module, params), EXPECTED, atol=1e-4)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"bert.{name}",
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
    ],
)
def test_names_with_a_prefix_and_of_older_files_are_the_same(folder, rename):
    _, params, _ = encoders.load_pretrained(folder())
    _, renamed, _ = encoders.load_pretrained(folder({rename(name): tensor for name, tensor in TENSORS.items()}))
    jax.tree.map(np.testing.assert_array_equal, params, renamed)


def test_weights_in_parts_and_in_half_precision_are_read(folder):
    _, params, _ = encoders.load_pretrained(folder())
    names = sorted(TENSORS)
    place = folder(None, **{"model.safetensors.index": {"weight_map": {name: f"part{i % 2}.safetensors" for i, name in enumerate(names)}}})
    for part in range(2):
        save_file({name: TENSORS[name].astype(np.float16) for name in names[part::2]}, place / f"part{part}.safetensors")
    _, parts, _ = encoders.load_pretrained(place)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.float32(np.float16(a)), b), params, parts)


def test_distilbert_has_other_names_and_no_types(folder, apply):
    tensors = {name: tensor for name, tensor in TENSORS.items() if "token_type" not in name}
    for ours, theirs in DISTIL.items():
        tensors = {name.replace(ours, theirs): tensor for name, tensor in tensors.items()}
    config = dict(model_type="distilbert", vocab_size=20, dim=8, n_layers=2, n_heads=2, hidden_dim=12, max_position_embeddings=10, dropout=0.2)
    module, params, _ = encoders.load_pretrained(folder({f"distilbert.{name}": tensor for name, tensor in tensors.items()}, config))
    assert (module.types, module.dropout) == (0, 0.2)
    expected = mean(bert(TENSORS | {"embeddings.token_type_embeddings.weight": np.zeros((1, 8))}, IDS, MASK, 2, 2), MASK)
    np.testing.assert_allclose(apply(module, params), expected, atol=1e-4)


def test_roberta_counts_its_places_behind_the_padding(folder, apply):
    tensors, skipped = tensors_of(places=12, types=1), "embeddings.position_embeddings.weight"
    place = folder(tensors, CONFIG | dict(model_type="roberta", max_position_embeddings=12, type_vocab_size=1, pad_token_id=1))
    module, params, _ = encoders.load_pretrained(place)
    assert module.max_length == 10
    np.testing.assert_allclose(apply(module, params), mean(bert(tensors | {skipped: tensors[skipped][2:]}, IDS, MASK, 2, 2), MASK), atol=1e-4)


def test_unixcoder_is_told_that_it_is_an_encoder(folder):
    place = folder()
    special = ("<s>", "<encoder-only>", "</s>")
    data.train_tokenizer(["to be or not to be"], 8, kind="words", special=special).save(str(place / "tokenizer.json"))
    _, _, tokenizer = encoders.load_pretrained(place)
    assert tokenizer.encode("to be").tokens == ["<s>", "<encoder-only>", "</s>", "to", "be", "</s>"]
    assert encoders.load_pretrained(folder())[2].encode("to be").tokens == ["[CLS]", "to", "be", "[SEP]"]


def test_pool_normalisation_and_length_are_those_of_the_sentence_model(folder):
    files = {"1_Pooling__config": {"word_embedding_dimension": 8, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}}
    files |= {"sentence_bert_config": {"max_seq_length": 7, "do_lower_case": False}, "modules": modules("Transformer", "Pooling", "Normalize")}
    module, _, tokenizer = encoders.load_pretrained(folder(**files))
    assert (module.pool, module.normalise, tokenizer.truncation["max_length"]) == ("first", True, 7)
    module, _, _ = encoders.load_pretrained(folder(**files), pool=None, normalise=False, dropout=0.0, dtype=jnp.bfloat16)
    assert (module.pool, module.normalise, module.dropout, module.dtype) == (None, False, 0.0, jnp.bfloat16)


def test_surplus_tensors_are_named_in_one_warning(folder):
    surplus = {
        "pooler.dense.weight": np.zeros((8, 8), np.float32),
        "embeddings.position_ids": np.arange(10)[None],
        "cls.predictions.bias": np.zeros(20),
    }
    with pytest.warns(UserWarning, match="3 tensors .* left out: cls.predictions.bias, embeddings.position_ids, pooler.dense.weight") as seen:
        encoders.load_pretrained(folder(TENSORS | surplus))
    assert len(seen) == 1


@pytest.mark.errors
def test_missing_and_misshapen_tensors_are_all_named(folder):
    tensors = TENSORS | {"encoder.layer.0.attention.self.key.weight": np.zeros((8, 7), np.float32)}
    del tensors["encoder.layer.1.output.dense.bias"], tensors["embeddings.LayerNorm.weight"]
    with pytest.raises(ValueError) as caught:
        encoders.load_pretrained(folder(tensors))
    for part in ("layer.1.output.dense.bias is missing", "embeddings.LayerNorm.weight is missing", r"key.weight is [8, 7] instead of [8, 8]"):
        assert part in str(caught.value)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(config=CONFIG | {"model_type": "t5"}), "model_type among bert, distilbert, .*, got 't5'"),
        (dict(config={"model_type": "bert", "vocab_size": 20}), "config.json lacks hidden_size, num_hidden_layers"),
        (dict(config=CONFIG | {"hidden_act": "relu"}), "must have hidden_act='gelu', got 'relu'"),
        (dict(config=CONFIG | {"vocab_size": 9}), "tokenizer.json has 13 tokens, more than the 9 of the model"),
        (dict(config=[]), "must hold a JSON object, got list"),
        (dict(tensors=None), "must have model.safetensors: weights in another format, such as pickles, are not read"),
        (
            dict(modules=modules("Transformer", "Dense")),
            "must name modules among Transformer, Pooling, Normalize, got 'sentence_transformers.models.Dense'",
        ),
        (
            {"modules": modules("Pooling"), "1_Pooling__config": {"pooling_mode_max_tokens": True}},
            "one pooling mode, .*, got pooling_mode_max_tokens",
        ),
        ({"tensors": None, "model.safetensors.index": {"weight_map": {"a": "../b"}}}, "a weight_map from tensors to files of the same folder"),
    ],
)
def test_a_folder_that_is_no_such_model_is_one_clear_error(folder, change, message):
    with pytest.raises(ValueError, match=message):
        encoders.load_pretrained(folder(**change))


@pytest.mark.errors
def test_missing_and_damaged_files_are_named(folder):
    for name, message in (
        ("model.safetensors", "model.safetensors is damaged"),
        ("tokenizer.json", "is no tokenizer"),
        ("config.json", "is not JSON"),
    ):
        place = folder()
        (place / name).write_bytes((place / name).read_bytes()[:40])
        with pytest.raises(ValueError, match=message):
            encoders.load_pretrained(place)
        (place / name).unlink()
        with pytest.raises(ValueError, match=name):
            encoders.load_pretrained(place)
    with pytest.raises(ValueError, match="which is not there"):
        encoders.load_pretrained(place / "elsewhere")
    with pytest.raises(TypeError, match="folder must be a path, got int"):
        encoders.load_pretrained(3)


@pytest.mark.parametrize("types", [2, 0])
def test_what_is_saved_is_read_back_bit_for_bit(tmp_path, types):
    pieces = data.train_tokenizer(["to be or not to be, that is the question"], 60)
    pieces.enable_truncation(9)
    module = encoders.TextTransformer(60, 8, layers=2, heads=2, hidden=12, max_length=10, types=types, pool="first", normalise=True, dropout=0.1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), IDS)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    encoders.save_pretrained(tmp_path / "saved", module, params, pieces)
    again, read, tokenizer = encoders.load_pretrained(tmp_path / "saved")
    assert again == module and tokenizer.to_str() == pieces.to_str()
    assert jax.tree.structure(read) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, read, params)
    names = {path.relative_to(tmp_path / "saved").as_posix() for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert names == {
        *("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "modules.json", "1_Pooling/config.json"),
        *("sentence_bert_config.json", "special_tokens_map.json", "tokenizer_config.json"),
    }
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert (settings["pad_token"], settings["model_max_length"], "token_type_ids" in settings["model_input_names"]) == ("[PAD]", 9, types > 0)
    vocabulary = (tmp_path / "saved" / "vocab.txt").read_text().splitlines()
    assert {token: place for place, token in enumerate(vocabulary)} == pieces.get_vocab()
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_tensors_that_are_read_and_saved_are_those_of_the_file(folder, tmp_path):
    encoders.save_pretrained(tmp_path / "saved", *encoders.load_pretrained(folder()))
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert saved.keys() == TENSORS.keys()
    assert all(np.array_equal(saved[name], TENSORS[name]) for name in TENSORS)
    assert json.loads((tmp_path / "saved" / "config.json").read_text()).items() >= CONFIG.items()
    assert not (tmp_path / "saved" / "vocab.txt").exists()  # of whole words: no WordPiece


@pytest.mark.errors
def test_a_folder_is_written_whole_or_not_at_all(folder, tmp_path, monkeypatch):
    module, params, tokenizer = encoders.load_pretrained(folder())
    place = tmp_path / "saved"

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.save_file", full)
        with pytest.raises(OSError, match="No space left"):
            encoders.save_pretrained(place, module, params, tokenizer)
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    encoders.save_pretrained(place, module, params, tokenizer)
    with pytest.raises(ValueError, match="folder must not be there yet, or be empty"):
        encoders.save_pretrained(place, module, params, tokenizer)
    for other, message in ((module.clone(pool=None), "pool='mean' or 'first'"), (module.clone(norm="pre"), "norm='post'")):
        with pytest.raises(ValueError, match=message):
            encoders.save_pretrained(tmp_path / "other", other, params, tokenizer)
    with pytest.raises(ValueError, match=r"params must be the variables of the module, which differ at .*'positions'"):
        encoders.save_pretrained(tmp_path / "other", module.clone(max_length=11), params, tokenizer)
    with pytest.raises(ValueError, match="tokenizer must have at most the 9 tokens of the module, got 13"):
        encoders.save_pretrained(tmp_path / "other", module.clone(vocab_size=9), params, tokenizer)
    with pytest.raises(TypeError, match="tokenizer must be a tokenizers.Tokenizer, got str"):
        encoders.save_pretrained(tmp_path / "other", module, params, "tokenizer.json")
    assert not (tmp_path / "other").exists()


@pytest.fixture(scope="module")
def minilm():
    try:
        place = data.pretrained("all-minilm-l6-v2")
        lee = data.load("lee", features=("first", "second", "score"))
    except ValueError as error:
        pytest.skip(str(error)[:200])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return place, encoders.load_pretrained(place), lee


TEXTS = ["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply today; nobody, it seems, had expected unbelievable losses."]


def test_minilm_gives_the_embeddings_of_a_float64_forward_pass(minilm, apply):
    place, (module, params, tokenizer), _ = minilm
    assert (module.pool, module.normalise, module.features, tokenizer.truncation["max_length"]) == ("mean", True, 384, 256)
    ids, mask = data.tokenise(tokenizer, TEXTS, length=(24, 256))
    expected = unit(mean(bert(load_file(place / "model.safetensors"), ids, mask, 6, 12), mask))
    got = apply(module, params, ids, mask)
    print("largest difference", np.abs(got - expected).max(), "similarities", got[0] @ got[1:].T)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert got[0] @ got[1] > 0.7 > 0.2 > abs(got[0] @ got[2])


def test_minilm_agrees_with_people_on_the_documents_of_lee(minilm, apply):
    _, (module, params, tokenizer), (first, second, scores) = minilm
    documents = sorted({*first, *second})
    # Whole texts take four times as long, and give 0.51.
    with pytest.warns(UserWarning, match="47 of 50 texts are longer than 64 tokens and were cut"):
        ids, mask = data.tokenise(tokenizer, documents, length=(24, 64))
    embeddings = dict(zip(documents, apply(module, params, ids, mask), strict=True))
    a, b = (np.stack([embeddings[text] for text in texts]) for texts in (first, second))
    correlation = float(metrics.sts_spearman(a, b, scores))
    print("Spearman", correlation, "tokens", mask.shape)
    assert len(documents) == 50 and 0.4 < correlation < 0.9
