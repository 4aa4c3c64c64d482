"""Folders of GPT-2's family: what is read is what its formulas say, tensor by tensor, and nothing goes unseen."""

import json
import warnings

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cljax import data, decoding, encoders

IDS = np.random.default_rng(0).integers(0, 20, (3, 7))
TOKENIZER = data.train_tokenizer(["to be or not to be, that is the question"], 20, kind="words")
CONFIG = dict(
    model_type="gpt2",
    vocab_size=20,
    n_positions=10,
    n_ctx=10,
    n_embd=8,
    n_layer=2,
    n_head=2,
    n_inner=None,
    activation_function="gelu_new",
    resid_pdrop=0.1,
    layer_norm_epsilon=1e-5,
)


def gpt2(tensors, ids, heads=2):
    """The logits `[B, L, V]`, in numpy and float64, of tensors by the names of a GPT2Model's file."""
    t = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}

    def linear(x, name):  # the library's Conv1D: weights are [inputs, outputs]
        return x @ t[f"{name}.weight"] + t[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * t[f"{name}.weight"] + t[f"{name}.bias"]

    def split(x):
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    states = t["wte.weight"][ids] + t["wpe.weight"][: ids.shape[1]]
    for i in range(2):
        queries, keys, values = map(split, np.split(linear(norm(states, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, axis=-1))
        scores = queries @ keys.transpose(0, 1, 3, 2) / np.sqrt(queries.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True)) * np.tri(ids.shape[1])
        mixed = (weights / weights.sum(-1, keepdims=True)) @ values
        states = states + linear(mixed.transpose(0, 2, 1, 3).reshape(states.shape), f"h.{i}.attn.c_proj")
        hidden = linear(norm(states, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        hidden = hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3))) / 2
        states = states + linear(hidden, f"h.{i}.mlp.c_proj")
    return norm(states, "ln_f") @ t["wte.weight"].T


def tensors_of(hidden=32):
    """A model of two layers, width 8, as a GPT2Model names it."""
    rng = np.random.default_rng(0)
    shapes = {"wte.weight": (20, 8), "wpe.weight": (10, 8), "ln_f.weight": (8,), "ln_f.bias": (8,)}
    for i in range(2):
        for name, size in {"attn.c_attn": (8, 24), "attn.c_proj": (8, 8), "mlp.c_fc": (8, hidden), "mlp.c_proj": (hidden, 8)}.items():
            shapes |= {f"h.{i}.{name}.weight": size, f"h.{i}.{name}.bias": size[1:]}
        shapes |= {f"h.{i}.{norm}.{name}": (8,) for norm in ("ln_1", "ln_2") for name in ("weight", "bias")}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


TENSORS = tensors_of()
BUFFERS = {f"h.{i}.attn.bias": np.tri(10, dtype=bool)[None, None] for i in range(2)} | {"h.0.attn.masked_bias": np.float32(-1e4)}


@pytest.fixture
def folder(tmp_path):
    def make(tensors=TENSORS, **changes):
        TOKENIZER.save(str(tmp_path / "tokenizer.json"))
        config = {name: value for name, value in (CONFIG | changes).items() if value != "left out"}
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file({name: np.asarray(tensor) for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
        return tmp_path

    return make


def logits_of(module, params):
    return np.asarray(jax.jit(module.apply)(params, IDS)[1])


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("also", [{}, BUFFERS | {"lm_head.weight": TENSORS["wte.weight"]}], ids=["alone", "with buffers and a head"])
def test_a_folder_gives_the_decoder_and_the_logits_of_its_tensors(folder, prefix, also):
    tensors = {(name if name == "lm_head.weight" else prefix + name): tensor for name, tensor in (TENSORS | also).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module, params, tokenizer = encoders.load_pretrained(folder(tensors))
    assert module == encoders.Decoder(20, 8, layers=2, heads=2, max_length=10, dropout=0.1)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(tensor.size for tensor in TENSORS.values())
    assert (tokenizer.truncation["max_length"], tokenizer.padding) == (10, None)
    np.testing.assert_allclose(logits_of(module, params), gpt2(TENSORS, IDS), atol=2e-4)


def test_an_own_width_and_older_settings_are_read(folder):
    tensors = tensors_of(12)
    module, params, _ = encoders.load_pretrained(folder(tensors, n_inner=12))
    assert module.hidden == 12
    np.testing.assert_allclose(logits_of(module, params), gpt2(tensors, IDS), atol=2e-4)
    module, _, _ = encoders.load_pretrained(folder(n_inner="left out", resid_pdrop="left out", activation_function="left out"))
    assert module == encoders.Decoder(20, 8, layers=2, heads=2, max_length=10)


def test_a_loaded_decoder_writes(folder):
    module, params, tokenizer = encoders.load_pretrained(folder(), dropout=0.0)
    prompt = np.array([tokenizer.encode("to be or").ids])
    found = decoding.generate(None, module.apply, params, prompt, steps=4, greedy=True)
    text = prompt
    for token in found.tokens[0]:
        assert token == gpt2(TENSORS, text)[0, -1].argmax()
        text = np.append(text, [[token]], axis=1)


def test_surplus_tensors_are_named(folder):
    with pytest.warns(UserWarning, match="2 tensors .* left out: score.weight, v_head.bias"):
        encoders.load_pretrained(folder(TENSORS | {"score.weight": np.zeros((2, 8)), "v_head.bias": np.zeros(1)}))


@pytest.mark.errors
def test_missing_and_misshapen_tensors_are_all_named(folder):
    tensors = TENSORS | {"h.1.attn.c_attn.weight": np.zeros((24, 8), np.float32)}
    del tensors["h.0.mlp.c_fc.bias"], tensors["ln_f.weight"]
    with pytest.raises(ValueError) as caught:
        encoders.load_pretrained(folder(tensors))
    for part in ("h.0.mlp.c_fc.bias is missing", "ln_f.weight is missing", "h.1.attn.c_attn.weight is [24, 8] instead of [8, 24]"):
        assert part in str(caught.value)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(activation_function="relu"), "must have activation_function='gelu_new', got 'relu'"),
        (dict(scale_attn_by_inverse_layer_idx=True), "must have scale_attn_by_inverse_layer_idx=False"),
        (dict(n_head="left out"), "config.json lacks n_head"),
        (dict(vocab_size=9), "tokenizer.json has 13 tokens, more than the 9 of the model"),
    ],
)
def test_a_folder_that_is_no_such_model_is_one_clear_error(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        encoders.load_pretrained(folder(**changes))


@pytest.mark.errors
def test_a_head_of_its_own_is_an_error(folder):
    with pytest.raises(ValueError, match="lm_head.weight of .* must be equal to wte.weight: the module has one table for both"):
        encoders.load_pretrained(folder(TENSORS | {"lm_head.weight": TENSORS["wte.weight"] + 1}))


def test_what_is_saved_is_what_the_published_model_is_and_reads_back_bit_for_bit(folder, tmp_path):
    module, params, tokenizer = encoders.load_pretrained(folder())
    encoders.save_pretrained(tmp_path / "saved", module, params, tokenizer)
    assert {name.removeprefix("transformer."): tensor.shape for name, tensor in load_file(tmp_path / "saved/model.safetensors").items()} == {
        name: tensor.shape for name, tensor in TENSORS.items()
    }
    config = json.loads((tmp_path / "saved/config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"] and config["eos_token_id"] is None and config["n_inner"] == 32
    again, found, cutter = encoders.load_pretrained(tmp_path / "saved")
    assert again == module.clone(hidden=32) and cutter.to_str() == tokenizer.to_str()
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.errors
def test_what_can_not_be_saved_is_one_clear_error(folder, tmp_path):
    module, params, tokenizer = encoders.load_pretrained(folder())
    with pytest.raises(ValueError, match="module must have positions='learned' to be written, got 'rotary'"):
        encoders.save_pretrained(tmp_path / "saved", module.clone(positions="rotary"), params, tokenizer)
    with pytest.raises(ValueError, match=r"params must be the variables of the module, which differ at \['params'\]\['positions'\]"):
        encoders.save_pretrained(tmp_path / "saved", module.clone(max_length=11), params, tokenizer)
    assert not (tmp_path / "saved").exists()
