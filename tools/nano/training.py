"""Training: from examples to a model that knows them by heart."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass

import torch
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from sabiyarn_edge.model_folder.config import GPTJXConfig
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tools.nano.examples import NanoExamples, group_by_length, to_tensors
from tools.nano.muon import Muon

__all__ = ["Recipe", "learning_rate_factor", "train"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training. With the corpus and the machine's arithmetic they decide the result."""

    seed: int = 0
    """Seed of the first weights, and of the order and variation of the examples."""
    epochs: int = 48
    """Passes over all articles and all translations."""
    max_minutes: float = 45.0
    """On a slow machine the schedule is hurried, so that training ends by then with a low learning rate."""
    n_layer: int = 4
    n_heads: int = 4
    n_embd: int = 128
    batch_tokens: int = 2048
    """Tokens of a batch, padding included; a longer sequence is a batch of its own."""
    matrix_lr: float = 0.02
    """Highest learning rate of Muon, for the matrices inside the blocks."""
    other_lr: float = 0.003
    """Highest learning rate of AdamW, for embeddings and layer norms."""


def learning_rate_factor(done: float) -> float:
    """Share of the highest learning rate when `done`, 0 ... 1, of the training is behind.

    A linear rise over the first 3 %, then a cosine down to 1 %.
    """
    rise = min(1.0, 0.02 + done / 0.03)
    return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def train(
    examples: NanoExamples, vocab_size: int, recipe: Recipe, *, show_progress: bool = True
) -> GPTJXForCausalLM:
    """A new model, trained until the recipe's epochs or minutes are over; in evaluation mode.

    Args:
        vocab_size: of the tokenizer that made the examples.
        show_progress: a bar on stderr with the loss (nats per token that counts, smoothed) and the speed
            (tokens/s, padding included).
    """
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    model = _new_model(examples, vocab_size, recipe).train()
    hidden = {name for name, p in model.named_parameters() if ".h." in name and p.dim() == 2}
    others = [p for name, p in model.named_parameters() if name not in hidden]
    muon = Muon([p for name, p in model.named_parameters() if name in hidden], lr=recipe.matrix_lr)
    adamw = torch.optim.AdamW(others, lr=recipe.other_lr, betas=(0.9, 0.95), weight_decay=0.0)

    total = recipe.epochs * (len(examples.articles) + len(examples.pairs))
    seen, tokens, smoothed = 0, 0, 0.0
    start = time.monotonic()
    batches = (
        batch
        for _ in range(recipe.epochs)
        for batch in group_by_length(examples.epoch(rng), max_tokens=recipe.batch_tokens, rng=rng)
    )
    with tqdm(total=total, desc="training", unit="text", disable=not show_progress) as bar:
        for batch in batches:
            seen += len(batch)
            minutes = (time.monotonic() - start) / 60
            if minutes >= recipe.max_minutes:
                break
            done = max(seen / total, minutes / recipe.max_minutes)
            factor = learning_rate_factor(done)
            _set_learning_rate(muon, recipe.matrix_lr * factor)
            _set_learning_rate(adamw, recipe.other_lr * factor)

            input_ids, targets = to_tensors(batch)
            loss = model(input_ids, targets=targets).loss
            loss.backward()
            clip_grad_norm_(others, 1.0)
            muon.step()
            adamw.step()
            model.zero_grad(set_to_none=True)

            tokens += input_ids.numel()
            smoothed = 0.98 * smoothed + 0.02 * loss.item() if smoothed else loss.item()
            bar.set_postfix_str(f"loss {smoothed:.4f}, {tokens / (time.monotonic() - start):.0f} tokens/s")
            bar.update(len(batch))
    return model.eval()


def _new_model(examples: NanoExamples, vocab_size: int, recipe: Recipe) -> GPTJXForCausalLM:
    config = GPTJXConfig(
        block_size=64 * math.ceil(examples.longest() / 64),
        vocab_size=vocab_size,
        n_layer=recipe.n_layer,
        n_heads=recipe.n_heads,
        n_embd=recipe.n_embd,
    )
    return GPTJXForCausalLM(config, j_bias=True)  # SabiYarn's checkpoints have one, too


def _set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
