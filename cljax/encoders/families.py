"""How models of BERT's family are written down: the names of their settings and of their tensors."""

from typing import NamedTuple


class Family(NamedTuple):
    """How models of a kind are written down.

    Attributes:
      prefix: what stands before all names of tensors where a head was added to the model.
      config: the names in `config.json`, by those of `TextTransformer`.
      fixed: what `config.json` must say, where it says it.
      block: the names of a block's tensors begin so.
      tensors: the other names, by those of the parameters: `.weight` and `.bias` follow; of several the rows stand one below the other.
    """

    prefix: str
    config: dict
    fixed: dict
    block: str
    tensors: dict


BERT = Family(
    prefix="bert.",
    config={
        "vocab_size": "vocab_size",
        "features": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "hidden": "intermediate_size",
        "max_length": "max_position_embeddings",
        "types": "type_vocab_size",
        "dropout": "hidden_dropout_prob",
        "epsilon": "layer_norm_eps",
    },
    fixed={"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False},
    block="encoder.layer.{}.",
    tensors={
        "tokens": ("embeddings.word_embeddings",),
        "positions": ("embeddings.position_embeddings",),
        "types": ("embeddings.token_type_embeddings",),
        "norm": ("embeddings.LayerNorm",),
        "query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
        "hidden": ("intermediate.dense",),
        "perceptron": ("output.dense",),
        "perceptron_norm": ("output.LayerNorm",),
    },
)
DISTILBERT = Family(
    prefix="distilbert.",
    config={
        "vocab_size": "vocab_size",
        "features": "dim",
        "layers": "n_layers",
        "heads": "n_heads",
        "hidden": "hidden_dim",
        "max_length": "max_position_embeddings",
        "dropout": "dropout",
    },
    fixed={"activation": "gelu"},
    block="transformer.layer.{}.",
    tensors={
        "tokens": ("embeddings.word_embeddings",),
        "positions": ("embeddings.position_embeddings",),
        "norm": ("embeddings.LayerNorm",),
        "query_key_value": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention": ("attention.out_lin",),
        "attention_norm": ("sa_layer_norm",),
        "hidden": ("ffn.lin1",),
        "perceptron": ("ffn.lin2",),
        "perceptron_norm": ("output_layer_norm",),
    },
)
FAMILIES = {"bert": BERT, "distilbert": DISTILBERT, "roberta": BERT._replace(prefix="roberta."), "xlm-roberta": BERT._replace(prefix="roberta.")}
