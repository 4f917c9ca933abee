"""GPTJXNetwork: weights, KV cache and the forward pass of the torch model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidInputError
from ..model_folder.config import GPTJXConfig
from ..options.generation_config import GenerationConfig
from .blocks import Attend
from .experts import without_experts
from .inputs import IGNORE_INDEX, Span, check_targets, check_token_ids, token_positions
from .kv_cache import KvCache
from .masks import CausalMasks, combine_with_padding, read_attention_mask, read_attn_mask
from .outputs import GPTJXOutput
from .routed_mlp import RoutedMLP
from .transformer import GPTJXTransformer, initialize_weights

__all__ = ["GPTJXNetwork"]


class GPTJXNetwork(nn.Module):
    """GPTJX with its tied language-model head: what computes, without files and without choosing tokens.

    Nothing but weights is allocated at construction, loading and training: masks and KV memory come into
    being when a cached or masked step needs them.

    Args:
        config: shape and settings.
        j_bias: whether each block's layer norm `j` has a bias. None: as config.bias says. Released
            checkpoints have it although their bias is False; from_pretrained() looks.
    """

    def __init__(self, config: GPTJXConfig, *, j_bias: bool | None = None) -> None:
        super().__init__()
        self.config = config
        self.j_bias = config.bias if j_bias is None else j_bias
        self.transformer = GPTJXTransformer(config, j_bias=self.j_bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False, device="meta")
        self.lm_head.weight = self.transformer.wte.weight
        self.causal_masks = CausalMasks(config.block_size)
        self.kv_cache = KvCache(config)
        self.generation_config = GenerationConfig()
        self.checkpoint_dtypes: dict[str, torch.dtype] = {}
        """Of each parameter in the files that from_pretrained() read; empty for a model of random weights."""
        initialize_weights(self, config)

    # --- the forward pass -------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor,
        *,
        targets: Tensor | None = None,
        attn_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
    ) -> GPTJXOutput:
        """Logits of every new token, and the loss when targets are given.

        With use_cache, the call continues after the tokens of earlier calls with use_cache, until
        clear_kv_cache() or free_kv_cache(); it records no gradients. In the shapes below, S = past + T, and
        past is 0 without it.

        Args:
            input_ids: integers [rows, T], in [0, vocab_size).
            targets: integers [rows, T]: the id that should follow each token (already shifted);
                -100 = does not count.
            attn_mask: which keys each new token may see; replaces causality. (T, S), (1|rows, T, S) or
                (1|rows, 1, T, S): bool, True = may attend; integers 0/1; or floats, added to the scores.
            attention_mask: key padding, [rows, S], 1 or True = a token; combined with causality or attn_mask.
                Later cached calls may leave it out: new tokens count as tokens.
            position_ids: integers [1|rows, T] or [T], in [0, block_size). Default: each token's index among
                the tokens of its row, padding not counted.
            use_cache: keep keys and values, and continue after those that are kept.
            logits_to_keep: compute logits of the last n positions only; 0 = all.

        Raises:
            InvalidInputError: wrong shapes, ids, options, or more positions than block_size.
            NumericalError: keys or values do not fit into a float16 KV cache, which is as it was before.
        """
        check_token_ids(input_ids, self.config)
        rows, count = input_ids.shape
        if targets is not None:
            check_targets(targets, input_ids, self.config)
        if targets is not None and logits_to_keep:
            raise InvalidInputError(
                f"targets need all logits, but logits_to_keep is {logits_to_keep}. Leave one of them out."
            )
        if not 0 <= logits_to_keep <= count:
            raise InvalidInputError(
                f"logits_to_keep is {logits_to_keep}; it must be in 0 ... {count}, the new tokens."
            )
        cache = self._continue_cache(rows) if use_cache else None
        span = Span(rows=rows, past=cache.lengths[0] if cache is not None else 0, count=count)
        span.check(self.config)

        device = input_ids.device
        visible = self._visible_keys(attention_mask, cache, span, device)
        mask = self._mask(attn_mask, visible, span, device)
        positions = token_positions(position_ids, visible, span, self.config, device)
        balance: list[Tensor] | None = [] if self.config.use_moe and self.training else None
        attend = Attend(mask=mask, causal=span.past == 0, cache=cache, balance=balance)
        with torch.set_grad_enabled(torch.is_grad_enabled() and cache is None):
            if cache is not None:
                cache.reserve(count, device)
            hidden = self.transformer(input_ids, positions, attend)
            if cache is not None:  # only now: a pass that fails leaves the cache as it was
                cache.advance([count] * rows)
                cache.visible = visible
            logits: Tensor = self.lm_head(hidden[:, -logits_to_keep:])
        return GPTJXOutput(
            logits=logits,
            loss=None if targets is None else _loss(logits, targets),
            load_balancing_loss=torch.stack(balance).mean() if balance else None,
        )

    def _continue_cache(self, rows: int) -> KvCache:
        if not self.config.use_kv_cache:
            raise InvalidInputError("use_cache is True, but use_kv_cache is False in this model's config.")
        if self.training:
            raise InvalidInputError(
                "use_cache is for evaluation, and this model is in training mode. Call eval()."
            )
        limit = self.config.max_batch_size
        if rows > limit:
            raise InvalidInputError(
                f"input_ids has {rows} rows, but max_batch_size is {limit} for cached steps. "
                f"Give fewer rows, or load the model with from_pretrained(..., max_batch_size={rows})."
            )
        cache = self.kv_cache
        if not any(cache.lengths):  # not begun, or begun by a pass that failed
            cache.start(rows, self.transformer.wte.weight.device)
        if len(cache.lengths) != rows:
            raise InvalidInputError(
                f"input_ids has {rows} rows, but the KV cache continues {len(cache.lengths)}. "
                "Give as many, or call clear_kv_cache() to begin anew."
            )
        return cache

    def _visible_keys(
        self, attention_mask: Tensor | None, cache: KvCache | None, span: Span, device: torch.device
    ) -> Tensor | None:
        """Key padding as bool [rows, S], or None when there is none."""
        if attention_mask is not None:
            return read_attention_mask(attention_mask, rows=span.rows, keys=span.keys, device=device)
        if cache is not None and cache.visible is not None:
            return F.pad(cache.visible, (0, span.count), value=True)
        return None

    def _mask(
        self, attn_mask: Tensor | None, visible: Tensor | None, span: Span, device: torch.device
    ) -> Tensor | None:
        """What attention needs beyond its own causality; None in the ordinary cases."""
        mask: Tensor | None = None
        if attn_mask is not None:
            dtype = self.transformer.wte.weight.dtype
            mask = read_attn_mask(
                attn_mask, rows=span.rows, queries=span.count, keys=span.keys, dtype=dtype, device=device
            )
        elif visible is not None or (span.past > 0 and span.count > 1):
            mask = torch.from_numpy(self.causal_masks.rows(span.past, span.count)).to(device)
        if mask is not None and visible is not None:
            mask = combine_with_padding(mask, visible, queries=span.count)
        return mask

    # --- the KV cache -----------------------------------------------------------------------------------

    def clear_kv_cache(self) -> None:
        """Forget all past tokens and zero their keys and values; the memory is kept for the next cached
        step."""
        self.kv_cache.clear()

    def free_kv_cache(self) -> None:
        """Forget all past tokens and release their memory, and the causal masks; later steps allocate
        again."""
        self.kv_cache.free()
        self.causal_masks.free()

    def memory_usage(self) -> dict[str, int]:
        """Bytes held now, by purpose: "weights" (tied ones once), "kv_cache", "causal_masks"."""
        return {
            "weights": sum(parameter.nbytes for parameter in self.parameters()),
            "kv_cache": self.kv_cache.nbytes,
            "causal_masks": self.causal_masks.nbytes,
        }

    # --- experts ----------------------------------------------------------------------------------------

    def keep_experts(self, kept: Mapping[int, Sequence[int]]) -> None:
        """Remove experts of a mixture, with their rows of the gates; config.expert_per_layer follows.

        Args:
            kept: layer -> the experts that stay, by their indices so far; they are renumbered in this order. Layers
                that are not named keep all.

        Raises:
            InvalidInputError: the model has no experts, there is no such layer or expert, one is named twice, or fewer
                stay than num_experts_per_tok. The model is as it was.
        """
        self.config = without_experts(self.config, kept)
        for layer, experts in kept.items():
            mlp = self.transformer.h[layer].mlp
            assert isinstance(mlp, RoutedMLP)
            mlp.keep_experts(list(experts))

    # --- embeddings -------------------------------------------------------------------------------------

    def get_input_embeddings(self) -> nn.Embedding:
        """The token table wte, [vocab_size, n_embd]; lm_head uses the same weight."""
        return self.transformer.wte

    def set_input_embeddings(self, embeddings: nn.Embedding) -> None:
        """Replace the token table, and lm_head's weight with it; the vocabulary may change its size."""
        if embeddings.embedding_dim != self.config.n_embd:
            raise InvalidInputError(
                f"the embeddings are {embeddings.embedding_dim} wide, but n_embd is {self.config.n_embd}."
            )
        self.transformer.wte = embeddings
        self.config = dataclasses.replace(self.config, vocab_size=embeddings.num_embeddings)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Make lm_head use wte's weight."""
        self.lm_head.weight = self.transformer.wte.weight
        self.lm_head.out_features = self.config.vocab_size


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the targets that count; 0 when none does, so that such a batch changes
    nothing."""
    total = F.cross_entropy(
        logits.float().flatten(0, 1), targets.long().flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )
    return total / (targets != IGNORE_INDEX).sum().clamp(min=1)
