"""Weights that others trained, from folders in the layout of sentence-embedding models; and such folders of one's own."""

import json
import os
import pathlib
import tempfile
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cljax.core.texts import read_tokenizer
from cljax.encoders.decoder import Decoder
from cljax.encoders.families import BERT, DISTILBERT, FAMILIES, GPT2
from cljax.encoders.text import TextTransformer

_WEIGHTS = "model.safetensors"
_POOLS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
_MODULES = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}


def load_pretrained(folder: str | os.PathLike, **options: Any) -> tuple[TextTransformer | Decoder, Any, Any]:
    """Reads a model of BERT's or GPT-2's family from a folder: nothing is downloaded, and nothing in it is run.

    Every tensor is accounted for. Where `modules.json` is there, the pool, the normalisation and the longest text are what an encoder was trained
    with; otherwise the pool is the mean. What the model doesn't need (the pooler, a head for another task) is named in one warning. UniXcoder, which
    is an encoder among other things, is told so in front of each text, as it was trained.

    Args:
      folder: with `config.json`, `model.safetensors` (or its parts, and their index) and `tokenizer.json`; `modules.json`, `1_Pooling/config.json`
        and `sentence_bert_config.json` where there are any. `model_type` is one of bert, distilbert, roberta, xlm-roberta and gpt2.
      **options: attributes of the module to be others than the folder says, such as `pool=None`, `dropout=0.0` or `dtype=jnp.bfloat16`.

    Returns:
      `(module, params, tokenizer)`: a `TextTransformer` (of gpt2 a `Decoder`), its variables in float32, and a `tokenizers.Tokenizer` that cuts to
      the longest length.

    Raises:
      TypeError: the folder is no path, or an option no attribute.
      ValueError: a file is missing or damaged, the model is of a kind that the module is not, or tensors are missing or of another shape: the
        message names them all.
    """
    folder = _folder(folder)
    config = _read_json(folder / "config.json")
    if config.get("model_type") not in FAMILIES:
        raise ValueError(f"{folder / 'config.json'} must have a model_type among {', '.join(FAMILIES)}, got {config.get('model_type')!r}")
    family = FAMILIES[config["model_type"]]
    settings = _settings(folder / "config.json", config, family)
    skipped = config.get("pad_token_id", 1) + 1 if "roberta" in config["model_type"] else 0  # its first places are nobody's
    settings["max_length"] -= skipped
    longest, modules = (None, {}) if family is GPT2 else _sentence_settings(folder)
    module = (Decoder if family is GPT2 else TextTransformer)(**settings | modules | options)
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    if (size := tokenizer.get_vocab_size()) > module.vocab_size:
        raise ValueError(f"{folder / 'tokenizer.json'} has {size} tokens, more than the {module.vocab_size} of the model")
    if tokenizer.token_to_id("<encoder-only>") is not None:
        _as_encoder(tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(longest or module.max_length, module.max_length))
    tensors = _read_tensors(folder)
    tensors = {_plain_name(name, family): tensor for name, tensor in tensors.items()}
    if skipped and "embeddings.position_embeddings.weight" in tensors:
        tensors["embeddings.position_embeddings.weight"] = tensors["embeddings.position_embeddings.weight"][skipped:]
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(family.constants)}
    for name, first in family.same.items():
        if {name, first} <= tensors.keys() and not np.array_equal(tensors.pop(name), tensors[first]):
            raise ValueError(f"{name} of {folder} must be equal to {first}: the module has one table for both")
    params, surplus = _assemble(folder, module, family, tensors)
    if surplus:
        warnings.warn(f"{len(surplus)} tensors of {folder} are not part of the model and were left out: {', '.join(surplus)}", stacklevel=2)
    return module, params, tokenizer


def save_pretrained(folder: str | os.PathLike, module: TextTransformer | Decoder, params: Any, tokenizer: Any) -> None:
    """Writes a folder that `load_pretrained` and the usual libraries read, of an encoder that of sentence embeddings; whole or not at all.

    What is read back from it is the same bit for bit.

    Args:
      folder: where it shall be; not there yet, or empty.
      module: a `TextTransformer` with `norm="post"` and the pool `"mean"` or `"first"`, or a `Decoder` with learned positions.
      params: its variables, `{"params": ...}`, or an average of them.
      tokenizer: the `tokenizers.Tokenizer` that goes with it; the length to which it cuts texts is written too.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: the folder holds something, params or tokenizer don't fit the module, or it is of a kind that can't be written so.
    """
    import tokenizers
    from safetensors.numpy import save_file

    if not isinstance(module, (TextTransformer, Decoder)):
        raise TypeError(f"module must be a TextTransformer or a Decoder, got {type(module).__name__}")
    if not isinstance(tokenizer, tokenizers.Tokenizer):
        raise TypeError(f"tokenizer must be a tokenizers.Tokenizer, got {type(tokenizer).__name__}")
    if (size := tokenizer.get_vocab_size()) > module.vocab_size:
        raise ValueError(f"tokenizer must have at most the {module.vocab_size} tokens of the module, got {size}")
    folder = _folder(folder, new=True)
    longest = min((tokenizer.truncation or {}).get("max_length", module.max_length), module.max_length)
    family, prefix, written = (_decoder_files if isinstance(module, Decoder) else _encoder_files)(module, tokenizer, longest)
    tensors = {f"{prefix}{name}": tensor for name, tensor in _take_apart(module, family, params).items()}
    config = {ours: getattr(module, ours) for ours in family.config} | {"hidden": module.hidden or 4 * module.features}
    written["config.json"] |= {theirs: config[ours] for ours, theirs in family.config.items()} | family.fixed
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".incomplete-") as scratch:
        made = pathlib.Path(scratch) / "model"
        for name, content in written.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_text(content if isinstance(content, str) else json.dumps(content, indent=2), encoding="utf-8")
        tokenizer.save(str(made / "tokenizer.json"))
        save_file(tensors, made / _WEIGHTS, metadata={"format": "pt"})
        os.rename(made, folder)


def _encoder_files(module, tokenizer, longest):
    """The family, what stands before the names of tensors, and the files in words, of `config.json` what isn't an attribute."""
    if module.norm != "post" or module.pool not in _POOLS.values():
        raise ValueError(f"module must have norm='post' and pool='mean' or 'first' to be written, got {module.norm!r} and {module.pool!r}")
    if not module.types and module.epsilon != 1e-12:
        raise ValueError(f"a module without types must have epsilon=1e-12 to be written, got {module.epsilon}")
    if module.types:
        family, config = BERT, {"model_type": "bert", "architectures": ["BertModel"], "attention_probs_dropout_prob": module.dropout}
    else:
        family, config = DISTILBERT, {"model_type": "distilbert", "architectures": ["DistilBertModel"], "attention_dropout": module.dropout}
    named = {f"{name}_token": _named(tokenizer, name) for name in ("unk", "sep", "pad", "cls", "mask")}
    named = {name: token for name, token in named.items() if token is not None}
    if "pad_token" in named:
        config["pad_token_id"] = tokenizer.token_to_id(named["pad_token"])
    inputs = ["input_ids", *["token_type_ids"] * bool(module.types), "attention_mask"]
    names = [name for name in _MODULES if name != "Normalize" or module.normalise]
    written = {
        "config.json": config,
        "modules.json": [
            {"idx": i, "name": str(i), "path": _MODULES[name], "type": f"sentence_transformers.models.{name}"} for i, name in enumerate(names)
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": module.features} | {mode: pool == module.pool for mode, pool in _POOLS.items()},
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False},
        "special_tokens_map.json": named,
        "tokenizer_config.json": named | _tokenizer_class(longest) | {"model_input_names": inputs},
    }
    if type(tokenizer.model).__name__ == "WordPiece":
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        written["vocab.txt"] = "".join(f"{token}\n" for token, _ in vocabulary)
    return family, "", written


def _decoder_files(module, tokenizer, longest):
    """The same of a decoder."""
    if module.positions != "learned":
        raise ValueError(f"module must have positions='learned' to be written, got {module.positions!r}")
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "embd_pdrop": module.dropout, "attn_pdrop": module.dropout}
    named, end = {}, tokenizer.token_to_id("<|endoftext|>")
    config |= {"bos_token_id": end, "eos_token_id": end}  # none: the usual library would take those of the published models
    if end is not None:
        named = {f"{name}_token": "<|endoftext|>" for name in ("bos", "eos", "unk")}
    return GPT2, GPT2.prefix, {"config.json": config, "special_tokens_map.json": named, "tokenizer_config.json": named | _tokenizer_class(longest)}


def _tokenizer_class(longest):
    """This class takes tokenizer.json as it is; BERT's own would put texts in lower case."""
    return {"model_max_length": longest, "tokenizer_class": "PreTrainedTokenizerFast"}


def _settings(path, config, family):
    """The attributes of the module that `config.json` states."""
    names = {ours: theirs for ours, theirs in family.config.items() if theirs in config or ours not in family.optional}
    if missing := [theirs for theirs in names.values() if theirs not in config]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    for name, wanted in family.fixed.items():
        if config.get(name, wanted) != wanted:
            raise ValueError(f"{path} must have {name}={wanted!r}, got {config[name]!r}")
    return {ours: config[theirs] for ours, theirs in names.items()}


def _sentence_settings(folder):
    """The longest text, or None, and the attributes of the module that `modules.json` and what it names state."""
    if not (folder / "modules.json").is_file():
        return None, {}
    found, places = {}, {}
    for entry in _read_json(folder / "modules.json", list):
        kind = str(entry.get("type")).rsplit(".", 1)[-1]
        if kind not in _MODULES:
            raise ValueError(f"{folder / 'modules.json'} must name modules among {', '.join(_MODULES)}, got {entry.get('type')!r}")
        places[kind] = entry.get("path") or ""
    if "Pooling" in places:
        path = folder / places["Pooling"] / "config.json"
        modes = [name for name, value in _read_json(path).items() if name.startswith("pooling_mode") and value]
        if len(modes) != 1 or modes[0] not in _POOLS:
            raise ValueError(f"{path} must have one pooling mode, {' or '.join(_POOLS)}, got {', '.join(modes) or 'none'}")
        found["pool"] = _POOLS[modes[0]]
    limits = folder / places.get("Transformer", "") / "sentence_bert_config.json"
    longest = _read_json(limits).get("max_seq_length") if limits.is_file() else None
    return longest, found | {"normalise": "Normalize" in places}


def _read_tensors(folder):
    """All tensors by name."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    index = folder / f"{_WEIGHTS}.index.json"
    names = [_WEIGHTS]
    if not (folder / _WEIGHTS).is_file() and index.is_file():
        listed = _read_json(index).get("weight_map")
        if not isinstance(listed, dict) or any(pathlib.PurePath(name).name != name for name in listed.values()):
            raise ValueError(f"{index} must have a weight_map from tensors to files of the same folder")
        names = sorted(set(listed.values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ValueError(f"{folder} must have {', '.join(missing)}: weights in another format, such as pickles, are not read")
    tensors = {}
    for name in names:
        try:
            tensors |= load_file(folder / name)
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{folder / name} is damaged: {str(error)[:200]}") from None
    return tensors


def _plain_name(name, family):
    """The name of a tensor in a model without a head, in today's spelling."""
    ending = {"gamma": "weight", "beta": "bias"}
    stem, dot, last = name.removeprefix(family.prefix).rpartition(".")
    return stem + dot + ending.get(last, last)


def _layout(module, family):
    """The shapes of the module's variables, and for each its path, its shape, the tensors that it is made of, and whether they lie transposed."""
    shapes = jax.eval_shape(lambda ids: module.init(jax.random.key(0), ids), jax.ShapeDtypeStruct((1, 1), jnp.int32))
    layout = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        _, *keys = (key.key for key in path)
        block = family.block.format(keys[0].removeprefix("block_")) if keys[0].startswith("block_") else ""
        keys = keys[1:] if block else keys
        ending = "bias" if keys[-1] == "bias" else "weight"
        names = [f"{block}{name}.{ending}" for name in family.tensors[keys[0]]]
        layout.append((jax.tree_util.keystr(path), leaf.shape, names, family.turned and keys[-1] == "kernel"))
    return shapes, layout


def _assemble(folder, module, family, tensors):
    """The module's variables out of tensors, and the names of those that they don't need."""
    (shapes, layout), wrong, used = _layout(module, family), [], set()
    for _, shape, names, turned in layout:
        expected = (shape[1] // len(names), shape[0]) if turned else (shape[0] // len(names), *shape[1:])
        for name in names:
            used.add(name)
            if name not in tensors:
                wrong.append(f"{name} is missing")
            elif tensors[name].shape != expected:
                wrong.append(f"{name} is {list(tensors[name].shape)} instead of {list(expected)}")
    if wrong:
        raise ValueError(f"the tensors of {folder} are not those of its config.json: {'; '.join(wrong)}")
    leaves = []
    for _, _, names, turned in layout:
        value = np.concatenate([tensors[name] for name in names])
        leaves.append(jnp.asarray((value.T if turned else value).astype(np.float32)))
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves), sorted(set(tensors) - used)


def _take_apart(module, family, params):
    """The tensors of a file, out of the module's variables."""
    found = {jax.tree_util.keystr(path): np.asarray(leaf, np.float32) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    _, layout = _layout(module, family)
    expected = {path: shape for path, shape, _, _ in layout}
    if expected != {name: leaf.shape for name, leaf in found.items()}:
        differing = sorted(name for name in expected | found if name not in found or found[name].shape != expected.get(name))
        raise ValueError(f"params must be the variables of the module, which differ at {', '.join(differing)}")
    tensors = {}
    for path, _, names, turned in layout:
        value = found[path]
        parts = np.split(value.T if turned else value, len(names))
        tensors |= {name: np.ascontiguousarray(part) for name, part in zip(names, parts, strict=True)}
    return tensors


def _named(tokenizer, name):
    """The token that has a role, in BERT's spelling or RoBERTa's, or None."""
    spellings = {"sep": ("[SEP]", "</s>"), "cls": ("[CLS]", "<s>")}.get(name, (f"[{name.upper()}]", f"<{name}>"))
    return next((token for token in spellings if tokenizer.token_to_id(token) is not None), None)


def _folder(folder, new=False):
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder must be a path, got {type(folder).__name__}")
    folder = pathlib.Path(folder).expanduser().absolute()
    if new and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder must not be there yet, or be empty, got {str(folder)!r}")
    if not new and not folder.is_dir():
        raise ValueError(f"folder must be a folder, got {str(folder)!r}, which is {'a file' if folder.exists() else 'not there'}")
    return folder


def _read_json(path, kind=dict):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"{path.parent} must have a file {path.name}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold a JSON {'object' if kind is dict else 'list'}, got {type(content).__name__}")
    return content


def _as_encoder(tokenizer):
    """UniXcoder's frame of a text that is encoded, of which tokenizer.json knows nothing."""
    from tokenizers import processors

    frame = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "<encoder-only>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> <encoder-only> </s> $A </s>", special_tokens=frame)
