"""The networks of wav2vec 2.0, HuBERT and WavLM, built by the transformers library from a plain dictionary.

Nothing here reads a file or the network. WavLM's attention runs on PyTorch's fused attention, which gives the
library's numbers and keeps no table of weights.
"""

import functools

import torch
from torch.nn import functional as F

from modules.speaker.convolutional import DEFAULTS

KINDS = ("wav2vec2", "hubert", "wavlm")
# keys that shape a network; all others in a config.json serve other purposes
SHAPE = (
    "model_type",
    *DEFAULTS,
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "do_stable_layer_norm",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
    "feat_proj_layer_norm",
    "num_buckets",
    "max_bucket_distance",
)
DROPOUT = (
    "hidden_dropout",
    "activation_dropout",
    "attention_dropout",
    "feat_proj_dropout",
    "layerdrop",
)
SETTINGS = (*SHAPE, *DROPOUT)
# parts that a few models have and that this module does not build
_REFUSED = ("conv_pos_batch_norm", "adapter_attn_dim")


def check_config(config, source="the configuration"):
    """Raise ``ValueError``, which names ``source``, unless :func:`build` can build ``config``."""
    if config.get("model_type") not in KINDS:
        raise ValueError(
            f"{source} must be a model of the kind {', '.join(KINDS)}; its model_type is "
            f"{config.get('model_type')!r}"
        )
    for key in _REFUSED:
        if config.get(key):
            raise ValueError(
                f"{source} has {key} = {config[key]!r}, which is not supported: take another model"
            )


def import_transformers():
    """The transformers library, or a ``RuntimeError`` that says how to install it."""
    try:
        import transformers
    except ImportError as error:
        raise RuntimeError(
            "wav2vec 2.0, HuBERT and WavLM need the transformers library, which is not installed: "
            "pip install 'transformers>=5,<6'"
        ) from error
    return transformers


def _library_config(config):
    """The transformers library's own configuration object; masking and adapters are not built."""
    options = {
        key: value for key, value in config.items() if key not in ("model_type", "do_normalize")
    }
    return import_transformers().AutoConfig.for_model(
        config["model_type"],
        **options,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        add_adapter=False,
    )


def build(config):
    """A network of the transformers library with random weights, as ``config`` says."""
    wavlm = config["model_type"] == "wavlm"
    network = import_transformers().AutoModel.from_config(
        _library_config(config),
        # masks are boolean, which the library's own loop does not take; it gives WavLM nothing else
        attn_implementation="eager" if wavlm else "sdpa",
    )
    if wavlm:
        for layer in network.encoder.layers:
            layer.attention.__class__ = _fused(type(layer.attention))
    return network


@functools.cache
def _fused(attention):
    """A subclass of the library's WavLM attention that runs on PyTorch's fused attention."""

    class FusedAttention(attention):
        def torch_multi_head_self_attention(self, hidden_states, attention_mask, position_bias):
            """Attention of (batch, time, channels) with the gated position bias (batch * heads, time, time)."""
            query, key, value = (
                project(hidden_states).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
                for project in (self.q_proj, self.k_proj, self.v_proj)
            )
            bias = position_bias.unflatten(0, (-1, self.num_heads)).to(query.dtype)
            if attention_mask is not None:
                bias = bias.masked_fill(~attention_mask[:, None, None], -torch.inf)
            out = F.scaled_dot_product_attention(
                query, key, value, bias, self.dropout if self.training else 0.0
            )
            return self.out_proj(out.transpose(1, 2).flatten(2)), None

    return FusedAttention


def complete(config):
    """``config`` with the library's values for what it leaves out, in plain lists."""
    full = {**_library_config(config).to_dict(), "do_normalize": DEFAULTS["do_normalize"], **config}
    return {key: list(one) if isinstance(one, tuple) else one for key, one in full.items()}
