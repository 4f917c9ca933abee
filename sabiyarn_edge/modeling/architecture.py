"""Which config.json describes GPTJX or GPTJXMoE, and which one a relative that computes something else.

Whether the tensors fit is checked against the file. This finds what tensors cannot show: keys that change how a model
computes. Such a key is refused by name unless its value says "off" or what GPTJX does anyway; all others are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInputError
from ..model_folder.config import OF_EXPERTS, GPTJXConfig

__all__ = ["check_architecture", "check_is_config"]

_NEEDED = ("block_size", "vocab_size", "n_layer", "n_embd")

_SUSPECTS = re.compile(
    r"""(^|_)(
        # positions, and what attention may see
        rope | rotary | alibi | relative | sinusoidal | position_embedding_type | window
        # other attention
        | n_kv | kv_heads | key_value | gqa | mqa | multi_query | mla | latent | lora | linear_attn | linear_attention
        | diff | differential | qk | softcap | softcapping | logit_scale | scale_attn | head_dim
        # other mixtures of experts
        | moe | experts? | router_(type|bias|activation) | scoring_func | topk_method | capacity_factor | sparse_step
        | dense_replace | n_group | topk_group
        # other blocks
        | shared? | sharing | parallel_(residual|attn|attention|block) | recurrent | mamba | ssm
        | rms | rmsnorm | norm_(type|eps|epsilon) | swiglu | geglu | glu | gated_mlp | n_inner | intermediate_size
        | mlp_ratio | activation(?!_check) | hidden_act | act_fn
    )(_|$)""",
    re.VERBOSE,
)
"""Words that name parts of other transformers, between underscores."""

SUPPORTED = (
    "Supported are learned positions, one key and value head for each query head, exact GELU, layer norms of epsilon "
    "1e-5, a head tied to the embedding, and dense MLPs or experts that a router chooses by its k largest scores."
)

_SAME_NAMES = ("gelu", "absolute")
"""Values that name what GPTJX does: the exact GELU, learned absolute positions."""


def check_architecture(values: Mapping[str, Any], config: GPTJXConfig) -> None:
    """Refuse a config.json with keys that change what the model computes.

    Args:
        values: all keys of the file.
        config: what was read from them.

    Raises:
        InvalidInputError: names the keys.
    """
    known = config.to_dict().keys() | {"n_head"}
    same = {
        "n_kv_heads": config.n_heads,
        "num_kv_heads": config.n_heads,
        "num_key_value_heads": config.n_heads,
        "head_dim": config.head_dim,
        "n_inner": 4 * config.n_embd,
        "intermediate_size": 4 * config.n_embd,
        "mlp_ratio": 4,
        "layer_norm_eps": 1e-5,
        "layer_norm_epsilon": 1e-5,
        "norm_eps": 1e-5,
        "scale_attn_weights": True,
    }
    foreign = [
        f"{name} ({value!r})"
        for name, value in values.items()
        if name not in known
        and _SUSPECTS.search(name.lower())
        and value not in (None, False, 0, "", [], {})
        and not (name in same and value == same[name])
        and not (isinstance(value, str) and value in _SAME_NAMES)
        # Without use_moe, the sizes of GPTJXMoE's experts mean nothing, and tensors show whether there are experts.
        # Where use_moe is false, other keys of experts mean nothing either.
        and name not in OF_EXPERTS
        and not ("use_moe" in values and not config.use_moe and re.search("expert|moe", name))
    ]
    if foreign:
        raise InvalidInputError(
            f"it describes another architecture than GPTJX: {', '.join(foreign)}. {SUPPORTED} A model with "
            f"{'this' if len(foreign) == 1 else 'these'} would be computed wrongly here. Remove the keys from the "
            "file only if the model was trained without them."
        )


def check_is_config(values: Mapping[str, Any]) -> None:
    """Raise InvalidInputError if keys that no GPTJX config lacks are missing."""
    missing = [name for name in _NEEDED if name not in values]
    if not {"n_heads", "n_head"} & values.keys():  # no tensor shows how many there are
        missing.append("n_heads")
    if missing:
        raise InvalidInputError(f"it is not the config of a GPTJX model: it lacks {', '.join(missing)}.")
