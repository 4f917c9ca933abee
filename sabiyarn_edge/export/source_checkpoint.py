"""The checkpoint that is exported: its model, its parameters as the graphs want them, and its texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..model_folder.config import GPTJXConfig
from ..modeling import GPTJXForCausalLM
from ..modeling.experts import read_kept_experts, without_experts
from ..modeling.hub import locate_checkpoint
from .block_plan import matrix_names, stored_name
from .decoder_graph import Parameters
from .options import exported_config
from .tensors import Array
from .text_ids import cut_to_rows, read_ids, written_by
from .weight_format import Matrix, WeightFormat

__all__ = ["Checkpoint", "OwnText"]

MOST_ROWS = 32
"""Of a cached step of the torch model: as many as any OwnText has."""

PIECE_LENGTH = 512
"""Tokens of a piece of text: enough for attention to see what it sees in use, and 100 MiB of SabiYarn-125M's logits."""


@dataclass(frozen=True)
class OwnText:
    """Text that the model writes when the user gives none: nothing could be more like what it was trained on."""

    rows: int
    length: int
    """Tokens of a row, or block_size if that is less."""
    seed: int


@dataclass(frozen=True)
class Checkpoint:
    """What an export starts from."""

    folder: Path
    model: GPTJXForCausalLM
    config: GPTJXConfig
    """Of the export: its block_size may be smaller than the model's."""
    tokenizer: Path
    """The folder with its tokenizer."""

    @property
    def dtype(self) -> str:
        """The narrowest of float16, bfloat16 and float32 that holds every matrix of the files exactly."""
        dtypes = self.model.checkpoint_dtypes
        own = {dtypes[stored_name(name)] for name in matrix_names(self.config)}
        return (
            str(own.pop()).removeprefix("torch.") if own in ({torch.float16}, {torch.bfloat16}) else "float32"
        )

    @classmethod
    def load(
        cls,
        source: str | Path,
        max_length: int | None,
        experts: str | None = None,
        tokenizer: Path | None = None,
    ) -> Checkpoint:
        """Read a checkpoint.

        Args:
            experts: those that stay of a mixture, as read_kept_experts() takes them; None: all.
            tokenizer: the folder with the tokenizer; None: the checkpoint's own.

        Raises:
            CheckpointError: it cannot be read, holds NaN or infinite numbers, or has a vocabulary of one token.
        """
        folder = locate_checkpoint(source)
        model = GPTJXForCausalLM.from_pretrained(
            folder, use_kv_cache=True, kv_cache_dtype="float32", max_batch_size=MOST_ROWS
        )
        config = GPTJXConfig.from_json_file(folder / "config.json")
        if config.vocab_size < 2:
            raise CheckpointError(f"{folder}: vocab_size is 1, but a model needs two tokens to choose from.")
        if experts is not None:
            kept = read_kept_experts(experts, config)
            config = without_experts(config, kept)
            model.keep_experts(kept)
        for name, tensor in model.state_dict().items():
            if not tensor.isfinite().all():
                raise CheckpointError(
                    f"{folder}: {name} holds NaN or infinite numbers, whatever the type of the export. It is "
                    "damaged, or its training diverged: take an earlier one."
                )
        return cls(folder, model, exported_config(config, max_length), tokenizer or folder)

    def views(self) -> dict[str, torch.Tensor]:
        """The model's own memory: each parameter by its name, and in place of a bank the matrix of each expert as a
        Linear has it, [outputs, inputs], by the bank's name and the expert's number."""
        found = {}
        for name, tensor in self.model.state_dict().items():
            if name.endswith("_bank"):
                found.update({f"{name}.{expert}": matrix.T for expert, matrix in enumerate(tensor)})
            else:
                found[name] = tensor
        return found

    def parameters(self) -> Parameters:
        views = self.views()
        shapes = {name: tuple(tensor.shape) for name, tensor in views.items()}
        rows = self.config.block_size
        shapes["transformer.wpe.weight"] = (rows, self.config.n_embd)

        def read(name: str) -> Array:
            values: Array = views[name].contiguous().numpy()
            return values[:rows] if name == "transformer.wpe.weight" else values

        return Parameters(shapes, read)

    def round_weights(self, weight_format: WeightFormat) -> None:
        """Give the torch model the values that the export stores: then both compute the same but for rounding
        within products."""
        views = self.views()
        for matrix in self.matrices():
            with torch.no_grad():
                views[matrix.name][: matrix.shape[0]] = torch.from_numpy(weight_format.restored(matrix))

    def count_parameters(self) -> int:
        """Numbers of the exported model, wte counted once."""
        dropped = (self.model.config.block_size - self.config.block_size) * self.config.n_embd
        return sum(parameter.numel() for parameter in self.model.parameters()) - dropped

    def matrices(self) -> list[Matrix]:
        """Every matrix, as it was trained."""
        parameters = self.parameters()
        return [parameters.matrix(name) for name in matrix_names(self.config)]

    def texts(
        self, text: str | None, own: OwnText, progress: Callable[[int], object] = lambda n: None
    ) -> Sequence[torch.Tensor]:
        """Ids [rows, length] of a text that was given, or else of the model's own.

        Args:
            progress: told the number of tokens as the model writes them; own.rows * own.length in all.
        """
        if text is not None:
            ids = read_ids(text, self.tokenizer, self.config.vocab_size)
            return cut_to_rows(ids, min(PIECE_LENGTH, self.config.block_size))
        length = min(own.length, self.config.block_size)
        return [written_by(self.model, rows=own.rows, length=length, seed=own.seed, progress=progress)]
