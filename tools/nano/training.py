"""Training: from examples to a model that knows them by heart."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.model_folder.config import GPTJXConfig
from sabiyarn_edge.modeling import GPTJXForCausalLM
from sabiyarn_edge.system.atomic_write import atomic_file
from tools.nano.batches import group_by_length, to_tensors
from tools.nano.examples import NanoExamples
from tools.nano.muon import Muon

__all__ = ["Recipe", "Trained", "learning_rate_factor", "train"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training. With the corpus, the machine's arithmetic and its threads they decide the result."""

    seed: int = 0
    """Seed of the first weights, and of the order and variation of the examples."""
    epochs: int = 48
    """Passes over all articles."""
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


@dataclass(frozen=True)
class Trained:
    """A model, and what it took."""

    model: GPTJXForCausalLM
    """In evaluation mode."""
    cpu_seconds: float
    """CPU time of the process while it trained, all threads together."""


def train(
    examples: NanoExamples,
    vocab_size: int,
    recipe: Recipe,
    *,
    state_file: Path | None = None,
    show_progress: bool = True,
) -> Trained:
    """Train a new model.

    Args:
        vocab_size: of the tokenizer that made the examples.
        state_file: where the state stands after each epoch. If there is one, training goes on from it, and ends with
            the weights that it had given without a break.
        show_progress: a bar on stderr with the loss (nats per token, smoothed) and the speed (tokens/s, padding
            included).

    Raises:
        InvalidInputError: the state is of another recipe or vocabulary.
    """
    state = _State.new(examples, vocab_size, recipe)
    if state_file is not None and state_file.exists():
        state.load(state_file)
    with tqdm(
        total=recipe.epochs,
        initial=state.epochs_done,
        desc="training",
        unit="epoch",
        disable=not show_progress,
    ) as bar:
        for epoch in range(state.epochs_done, recipe.epochs):
            begun = time.process_time()
            _run_epoch(state, examples, recipe, epoch, bar)
            state.cpu_seconds += time.process_time() - begun
            state.epochs_done = epoch + 1
            bar.update()
            if state_file is not None:
                state.save(state_file)
    return Trained(state.model.eval(), state.cpu_seconds)


@dataclass
class _State:
    """What a training has reached after some epochs."""

    model: GPTJXForCausalLM
    muon: Muon
    adamw: torch.optim.AdamW
    begun_as: dict[str, Any]
    """Recipe and shape: a state of others is refused."""
    epochs_done: int = 0
    cpu_seconds: float = 0.0

    @classmethod
    def new(cls, examples: NanoExamples, vocab_size: int, recipe: Recipe) -> _State:
        torch.manual_seed(recipe.seed)
        model = _new_model(examples, vocab_size, recipe).train()
        hidden = {name for name, p in model.named_parameters() if ".h." in name and p.dim() == 2}
        others = [p for name, p in model.named_parameters() if name not in hidden]
        muon = Muon([p for name, p in model.named_parameters() if name in hidden], lr=recipe.matrix_lr)
        adamw = torch.optim.AdamW(others, lr=recipe.other_lr, betas=(0.9, 0.95), weight_decay=0.0)
        shape = {"vocab_size": vocab_size, "block_size": model.config.block_size}
        return cls(model, muon, adamw, {**dataclasses.asdict(recipe), **shape})

    def save(self, file: Path) -> None:
        values = {
            "begun_as": self.begun_as,
            "epochs_done": self.epochs_done,
            "cpu_seconds": self.cpu_seconds,
            **{name: getattr(self, name).state_dict() for name in ("model", "muon", "adamw")},
        }
        with atomic_file(file) as partial:
            torch.save(values, partial)

    def load(self, file: Path) -> None:
        values = torch.load(file, weights_only=True)
        if values["begun_as"] != self.begun_as:
            raise InvalidInputError(
                f"{file} is the state of a training with {values['begun_as']}, but this one has {self.begun_as}. Give "
                "its options, or delete the file."
            )
        for name in ("model", "muon", "adamw"):
            getattr(self, name).load_state_dict(values[name])
        self.epochs_done, self.cpu_seconds = values["epochs_done"], values["cpu_seconds"]


def _run_epoch(
    state: _State, examples: NanoExamples, recipe: Recipe, epoch: int, bar: tqdm[NoReturn]
) -> None:
    rng = random.Random(recipe.seed * recipe.epochs + epoch)  # the same, wherever training begins anew
    batches = list(group_by_length(examples.epoch(rng), max_tokens=recipe.batch_tokens, rng=rng))
    tokens, smoothed, start = 0, 0.0, time.monotonic()
    for index, batch in enumerate(batches):
        factor = learning_rate_factor((epoch + index / len(batches)) / recipe.epochs)
        _set_learning_rate(state.muon, recipe.matrix_lr * factor)
        _set_learning_rate(state.adamw, recipe.other_lr * factor)

        input_ids, targets = to_tensors(batch)
        loss = state.model(input_ids, targets=targets).loss
        loss.backward()
        clip_grad_norm_(state.adamw.param_groups[0]["params"], 1.0)
        state.muon.step()
        state.adamw.step()
        state.model.zero_grad(set_to_none=True)

        tokens += input_ids.numel()
        smoothed = 0.95 * smoothed + 0.05 * loss.item() if smoothed else loss.item()
        bar.set_postfix_str(f"loss {smoothed:.4f}, {tokens / (time.monotonic() - start):.0f} tokens/s")


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
