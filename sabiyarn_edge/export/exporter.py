"""export_model: from a checkpoint to a checked model folder."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..config import GPTJXConfig, ModelConfig
from ..modeling import GPTJXForCausalLM
from ..modeling.hub import locate_checkpoint
from .block_plan import matrix_names
from .decoder_graph import Parameters, build_decoder
from .graph_builder import GraphBuilder
from .kv_scales import (
    OWN_TEXT,
    OWN_TEXTS,
    Calibration,
    calibration_pieces,
    measure_scales,
    own_length,
    read_calibration,
    write_text,
)
from .masked_graph import build_masked_decoder
from .onnx_file import make_model, write_onnx
from .options import MIB, check_options, check_space, exported_config
from .progress import Progress
from .reference import Reference, make_reference, split_positions
from .report import ExportReport
from .side_files import copy_tokenizer, write_generation_config
from .target_folder import atomic_folder, check_target
from .tensors import Array
from .verify import Verification, verify_export
from .weight_format import WeightFormat
from .weight_formats import DEFAULT_DTYPE, make_weight_format
from .weights_writer import plan_weights, write_weights

__all__ = ["export_model"]

WEIGHTS_FILE = "weights.bin"
GRAPH_FILES = {"decoder": "decoder.onnx", "decoder_masked": "decoder_masked.onnx"}
ROOM_FOR_SMALL_FILES = 4 * MIB
"""Graphs, configs and report; the tokenizer may be larger."""


def export_model(
    source: str | Path,
    out: str | Path,
    *,
    dtype: str = DEFAULT_DTYPE,
    weight_block_size: int | None = None,
    keep_int8: Sequence[str] | None = None,
    kv_cache_dtype: str = "float16",
    calibration: str | Path | None = None,
    max_length: int | None = None,
    force: bool = False,
    verify: bool = True,
    progress: bool = True,
) -> ExportReport:
    """Export a GPTJX checkpoint to a model folder, which EdgeGenerator.from_pretrained reads.

    OUT is complete when this returns, and as it was before when it raises, also on Ctrl-C.

    Args:
        source: checkpoint folder (config.json and weights), or hub id "owner/name".
        out: folder to make; missing parents are made too.
        dtype: how matrices are stored: "int8" (a quarter of float32's size, more than twice the speed, nearly
            the same logits); "int4" (smaller and faster still, at a loss that the report states); "float32";
            "float16-weights" (half the size on disk; onnxruntime widens them when it loads, and computes in
            float32).
        weight_block_size: int8 and int4 have a scale and a zero point for so many weights of a row: 16, 32, 64,
            128 or 256. None: 128, or less where 128 does not divide the width.
        keep_int8: which matrices of an int4 export have 8 bits: "lm_head" (the embedding too, which is the same
            table), "first", "last" (blocks) and parts of names ("mlp.c_proj", "h.3", "wpe"). None: lm_head and wpe.
        kv_cache_dtype: how keys and values are stored: "float16"; "float32" (twice the memory); "int8" (half of
            float16's, at a small loss; each channel has a scale).
        calibration: UTF-8 text file from which the scales of an int8 cache are found; some thousand words like those
            that the model will read. None: a text that the model writes itself.
        max_length: cuts the position table to so many rows, for devices that never need block_size of them;
            prompt and output together cannot be longer. None: all.
        force: replace OUT if it is an earlier export.
        verify: compare the graph with the torch model of the same (rounded) weights, and fail if it differs by
            more than rounding inside the products.
        progress: show a bar for each stage on stderr.

    Returns:
        The report that also stands in OUT/export_report.json.

    Raises:
        InvalidInputError: an option is not one of those allowed.
        CheckpointError: the checkpoint cannot be read, or its tensors do not fit its config.
        ExportError: OUT exists or cannot be written, the disk is full, onnxruntime cannot run the model's
            shape, or the graph differs from the model.
    """
    check_options(dtype, weight_block_size, keep_int8, kv_cache_dtype, calibration, max_length)
    out = Path(out).expanduser()
    local = Path(source).expanduser()
    check_target(out, local if local.is_dir() else None, force=force)
    stages = Progress(show=progress)
    with stages.stage("reading checkpoint", 1) as advance:
        checkpoint = _Checkpoint.load(source, max_length)
        advance(1)
    config, folder = checkpoint.config, checkpoint.folder
    source_block_size, parameters = checkpoint.model.config.block_size, checkpoint.count_parameters()
    weight_format = make_weight_format(dtype, config, weight_block_size, keep_int8)
    calibrated = _calibrate(checkpoint, calibration, stages) if kv_cache_dtype == "int8" else Calibration()
    recipe = (checkpoint.parameters(), config, weight_format, kv_cache_dtype, calibrated.scales)
    graphs = {"decoder": build_decoder(*recipe), "decoder_masked": build_masked_decoder(*recipe)}
    nodes = len(graphs["decoder"].nodes)
    check_space(out, plan_weights(graphs["decoder"].tensors.values()).file_size + ROOM_FOR_SMALL_FILES)

    with atomic_folder(out) as partial:
        notes = copy_tokenizer(folder, partial, config.vocab_size)
        notes += write_generation_config(folder, partial, config.vocab_size)
        model_config = _write_model(graphs, partial, config, dtype, kv_cache_dtype, stages)
        model_config.save(partial)
        reference = _run_reference(checkpoint, weight_format, stages) if verify else None
        # onnxruntime makes its own copy of the weights: there is no need for two
        del (checkpoint, recipe, graphs, weight_format)
        verifications = {
            graph: _verify(partial, model_config, reference, graph, stages) if reference is not None else None
            for graph in GRAPH_FILES
        }
        report = ExportReport(
            source=str(source),
            out=str(out),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            dtype=dtype,
            kv_cache_dtype=kv_cache_dtype,
            kv_calibration=calibrated.text,
            kv_calibration_tokens=calibrated.tokens,
            block_size=config.block_size,
            source_block_size=source_block_size,
            parameters=parameters,
            nodes=nodes,
            kv_bytes_per_token=_kv_bytes_per_token(model_config),
            sizes_mib=_sizes_mib(partial),
            weights_hash=model_config.weights_hash,
            verification=verifications["decoder"],
            masked_verification=verifications["decoder_masked"],
            versions=_versions(),
            seconds=stages.seconds,
            notes=notes,
        )
        report.save(partial)
    return report


@dataclass(frozen=True)
class _Checkpoint:
    folder: Path
    model: GPTJXForCausalLM
    config: GPTJXConfig
    """Of the export: its block_size may be smaller than the model's."""

    @classmethod
    def load(cls, source: str | Path, max_length: int | None) -> _Checkpoint:
        folder = locate_checkpoint(source)
        model = GPTJXForCausalLM.from_pretrained(
            folder, use_kv_cache=True, kv_cache_dtype="float32", max_batch_size=OWN_TEXTS
        )
        config = GPTJXConfig.from_json_file(folder / "config.json")
        return cls(folder, model, exported_config(config, max_length))

    def parameters(self) -> Parameters:
        state = self.model.state_dict()
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        rows = self.config.block_size
        shapes["transformer.wpe.weight"] = (rows, self.config.n_embd)

        def read(name: str) -> Array:
            values: Array = state[name].numpy()
            return values[:rows] if name == "transformer.wpe.weight" else values

        return Parameters(shapes, read)

    def round_weights(self, weight_format: WeightFormat) -> None:
        """Give the torch model the values that the export stores: then both compute the same but for rounding
        within products."""
        parameters, state = self.parameters(), self.model.state_dict()
        for name in matrix_names(self.config):
            matrix = parameters.matrix(name)
            with torch.no_grad():
                state[name][: matrix.shape[0]] = torch.from_numpy(weight_format.restored(matrix))

    def count_parameters(self) -> int:
        """Numbers of the exported model, wte counted once."""
        dropped = (self.model.config.block_size - self.config.block_size) * self.config.n_embd
        return sum(parameter.numel() for parameter in self.model.parameters()) - dropped


def _calibrate(checkpoint: _Checkpoint, path: str | Path | None, stages: Progress) -> Calibration:
    model, block_size = checkpoint.model, checkpoint.config.block_size
    if path is not None:
        tokens = read_calibration(path, checkpoint.folder)
    else:
        with stages.stage("writing a text", OWN_TEXTS * own_length(block_size), "token") as advance:
            tokens = write_text(model, block_size, progress=advance)
    pieces = calibration_pieces(tokens, block_size)
    total = sum(len(piece) for _, piece in pieces)
    with stages.stage("calibrating KV cache", total, "token") as advance:
        scales = measure_scales(model, pieces, advance)
    return Calibration(scales, OWN_TEXT if path is None else str(path), total)


def _run_reference(checkpoint: _Checkpoint, weight_format: WeightFormat, stages: Progress) -> Reference:
    checkpoint.round_weights(weight_format)
    block_size = checkpoint.config.block_size
    with stages.stage("running torch model", split_positions(block_size)[1] + 1, "token") as advance:
        return make_reference(checkpoint.model, block_size, progress=advance)


def _write_model(
    graphs: dict[str, GraphBuilder],
    folder: Path,
    config: GPTJXConfig,
    dtype: str,
    kv_cache_dtype: str,
    stages: Progress,
) -> ModelConfig:
    """Write weights.bin and the graphs, which share it; returns the config that describes them."""
    layout = plan_weights(graphs["decoder"].tensors.values())
    with stages.stage("writing weights", layout.nbytes, "B") as advance:
        header = write_weights(layout, folder / WEIGHTS_FILE, progress=advance)
    model_config = ModelConfig(
        gptjx=config,
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        graphs=dict(GRAPH_FILES),
        weights_file=WEIGHTS_FILE,
        weights_bytes=(folder / WEIGHTS_FILE).stat().st_size,
        weights_hash=header.weights_hash,
    )
    metadata = {
        "weights_hash": header.weights_hash,
        "format_version": str(model_config.format_version),
        "kv_cache_dtype": kv_cache_dtype,
        "block_size": str(model_config.gptjx.block_size),  # no input of the graph shows it
    }
    with stages.stage("writing graphs", len(graphs)) as advance:
        for name, graph in graphs.items():
            model = make_model(graph, name, WEIGHTS_FILE, header.tensors, metadata)
            write_onnx(model, folder / GRAPH_FILES[name])
            advance(1)
    return model_config


def _verify(
    folder: Path, config: ModelConfig, reference: Reference, graph: str, stages: Progress
) -> Verification:
    generated = len(reference.tokens) - reference.prompt_length
    stage = {"decoder": "checking graph", "decoder_masked": "checking masked graph"}[graph]
    with stages.stage(stage, len(reference.tokens) + generated, "token") as advance:
        verification = verify_export(folder, config, reference, graph=graph, progress=advance)
    verification.check()
    return verification


def _kv_bytes_per_token(config: ModelConfig) -> int:
    """Key and value of n_embd numbers in each layer."""
    return 2 * config.gptjx.n_layer * config.gptjx.n_embd * np.dtype(config.kv_cache_dtype).itemsize


def _sizes_mib(folder: Path) -> dict[str, float]:
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return {name: round(size / MIB, 3) for name, size in {**sizes, "total": sum(sizes.values())}.items()}


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("numpy", "onnx", "onnxruntime", "torch")}
    return {
        "python": platform.python_version(),
        "sabiyarn_edge": __version__,
        **packages,
        "machine": f"{platform.system()} {platform.machine()}",
    }
