"""Keys of Hugging Face's generation_config.json (transformers 4.57) that are no options here."""

from __future__ import annotations

from typing import Any

__all__ = ["NOT_HERE", "NO_EFFECT"]

NO_EFFECT = frozenset(
    {
        "_commit_hash",
        "_from_model_config",
        "assistant_confidence_threshold",
        "assistant_lookbehind",
        "cache_config",
        "cache_implementation",
        "compile_config",
        "decoder_start_token_id",
        "disable_compile",
        "generation_kwargs",
        "is_assistant",
        "low_memory",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "prefill_chunk_size",
        "return_dict_in_generate",
        "return_legacy_cache",
        "target_lookbehind",
        "transformers_version",
        "use_cache",
    }
)
"""Bookkeeping, and options that change speed, memory or the form of the result, but no token of it."""

NOT_HERE: dict[str, Any] = {
    "assistant_early_exit": None,
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "guidance_scale": None,
    "num_beam_groups": 1,
    "penalty_alpha": None,
    "remove_invalid_values": False,
    "token_healing": False,
    "watermarking_config": None,
}
"""Options that would change the output and do not exist here -> the value that switches them off."""
