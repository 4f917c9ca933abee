"""GPTJXForCausalLM: the torch model, for training, for reference and for export."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, overload

from torch import Tensor

from ..options import checks as check
from ..options.generation_config import GenerationConfig
from .checkpoint import load_pretrained, save_pretrained
from .generation import generate
from .network import GPTJXNetwork
from .outputs import GPTJXGenerateOutput

__all__ = ["GPTJXForCausalLM"]


class GPTJXForCausalLM(GPTJXNetwork):
    """GPTJXNetwork that is read from files, written to them, and generates."""

    @overload
    def generate(
        self,
        input_ids: Any = None,
        *,
        attn_mask: Any = None,
        attention_mask: Any = None,
        generation_config: GenerationConfig | None = None,
        use_cache: bool | None = None,
        return_dict_in_generate: Literal[False] = False,
        **options: Any,
    ) -> Tensor: ...

    @overload
    def generate(
        self,
        input_ids: Any = None,
        *,
        attn_mask: Any = None,
        attention_mask: Any = None,
        generation_config: GenerationConfig | None = None,
        use_cache: bool | None = None,
        return_dict_in_generate: Literal[True],
        **options: Any,
    ) -> GPTJXGenerateOutput: ...

    def generate(
        self,
        input_ids: Any = None,
        *,
        attn_mask: Any = None,
        attention_mask: Any = None,
        generation_config: GenerationConfig | None = None,
        use_cache: bool | None = None,
        return_dict_in_generate: bool = False,
        **options: Any,
    ) -> Tensor | GPTJXGenerateOutput:
        """Continue each prompt; the choice of tokens is that of EdgeGenerator, by the same compiled core.

        The KV cache is begun anew, and empty afterwards.

        Args:
            input_ids: integers [rows, P] or [P] as tensor, array or lists; lists of rows may differ in length. Or an
                encoding of a Hugging Face tokenizer, as it is or as `**encoding`: its input_ids and attention_mask
                are taken.
            attn_mask: replaces the causal mask. A tensor or array has the shape (P, P), (1|rows, P, P) or
                (1|rows, 1, P, P), as in forward(). A list holds a mask (P, P), or None, for each prompt. A function
                takes P and returns a mask. New tokens see what the prompt's last token saw, and the new ones up to
                themselves. If every token that a token saw was dropped by `overflow`, it sees itself.
            attention_mask: [rows, P], 1 or True = a token. Padding, on either side, is left out of the prompt.
            generation_config: options; None: the model's own.
            use_cache: keep keys and values from step to step; None: as the model's config says.
            return_dict_in_generate: return a GPTJXGenerateOutput instead of its sequences.
            options: single options by their names in GenerationConfig, and the callables logits_processor,
                prefix_allowed_tokens_fn and stopping_criteria; stop_strings, and texts as prompts, need a
                sabiyarn_edge.text.tokenizer.Tokenizer as `tokenizer`. Also:
            overflow: what to do when prompt and output need more positions than block_size. "slide" (the default):
                generate on without end; whenever the positions are used up, the oldest half of the tokens is
                forgotten and the newer half run again. "error": refuse before starting. "truncate_prompt": cut
                tokens out of the prompt, so that the output fits. EdgeGenerator's default is "error", because a
                device should not forget, or pause to run tokens again, unasked; who experiments here wants the
                tokens that were asked for.
            keep_tokens: so many first tokens of a prompt are never dropped by "slide" or "truncate_prompt"; 0.

        Returns:
            int64 tensor [rows * num_return_sequences, length]: prompt and output, filled up with pad_token_id on the
            right. It is on the device of input_ids if that is a tensor, else (lists, arrays) on the model's.

        Raises:
            InvalidInputError: a prompt, a mask or an option is not allowed; nothing was computed.
            NumericalError: the scores of a row are NaN, or all -inf though no option forbids tokens; or keys or values
                do not fit into a float16 KV cache.

        Warns:
            OptionWarning: the encoding holds more than input_ids and attention_mask; names what was left out.
        """
        output = generate(
            self,
            input_ids,
            attn_mask=attn_mask,
            attention_mask=attention_mask,
            generation_config=generation_config,
            use_cache=use_cache,
            options=options,
        )
        return output if return_dict_in_generate else output.sequences

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, **settings: Any
    ) -> GPTJXForCausalLM:
        """Load a checkpoint, in evaluation mode and float32, with its generation_config.json if it has one.

        Special token ids that generation_config.json leaves out are taken from config.json.

        Args:
            source: a folder with config.json and model.safetensors (or shards with their index, or
                pytorch_model.bin), or a hub id such as "owner/name".
            revision: branch, tag or commit of a hub id.
            settings: config values that may differ from the checkpoint's: use_kv_cache, kv_cache_dtype,
                max_batch_size, dropout.

        Raises:
            CheckpointError: it cannot be read, it is of another architecture, or its tensors do not fit its config.
            InvalidInputError: a setting that cannot be changed, or a wrong value.
        """
        check.path("source", source)
        return load_pretrained(cls, source, revision=revision, settings=settings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, generation_config.json and model.safetensors, each complete or not at all.

        wte stands once; lm_head is tied to it.

        Raises:
            CheckpointError: the folder cannot be written.
            InvalidInputError: `folder` is no path.
        """
        save_pretrained(self, check.path("folder", folder))
