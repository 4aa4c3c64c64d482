"""How models of BERT's and GPT-2's families are written down: the names of their settings and of their tensors."""

from typing import NamedTuple


class Family(NamedTuple):
    """How models of a kind are written down.

    Attributes:
      prefix: what stands before all names of tensors where a head was added to the model.
      config: the names in `config.json`, by those of the module's attributes.
      fixed: what `config.json` must say, where it says it.
      block: the names of a block's tensors begin so.
      tensors: the other names, by those of the parameters: `.weight` and `.bias` follow; of several the rows stand one below the other.
      turned: whether the weights of linear layers are `[outputs, inputs]`.
      optional: the attributes that `config.json` may leave out.
      same: a tensor that may be there again by another name, `{other: name}`.
      constants: the ends of the names of tensors that hold nothing that was learned.
    """

    prefix: str
    config: dict
    fixed: dict
    block: str
    tensors: dict
    turned: bool = True
    optional: tuple = ()
    same: dict = {}
    constants: tuple = ()


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
GPT2 = Family(
    prefix="transformer.",
    config={
        "vocab_size": "vocab_size",
        "features": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "hidden": "n_inner",
        "max_length": "n_positions",
        "dropout": "resid_pdrop",
        "epsilon": "layer_norm_epsilon",
    },
    fixed={
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
    },
    block="h.{}.",
    tensors={
        "tokens": ("wte",),
        "positions": ("wpe",),
        "norm": ("ln_f",),
        "query_key_value": ("attn.c_attn",),
        "attention": ("attn.c_proj",),
        "attention_norm": ("ln_1",),
        "hidden": ("mlp.c_fc",),
        "perceptron": ("mlp.c_proj",),
        "perceptron_norm": ("ln_2",),
    },
    turned=False,
    optional=("hidden", "dropout"),
    same={"lm_head.weight": "wte.weight"},
    constants=(".attn.bias", ".attn.masked_bias"),
)
FAMILIES = {
    "bert": BERT,
    "distilbert": DISTILBERT,
    "roberta": BERT._replace(prefix="roberta."),
    "xlm-roberta": BERT._replace(prefix="roberta."),
    "gpt2": GPT2,
}
