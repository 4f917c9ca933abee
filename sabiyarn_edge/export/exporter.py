"""export_model: from a checkpoint to a checked model folder."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from .. import __version__
from ..model_folder.config import FORMAT_VERSION, GPTJXConfig, ModelConfig
from ..modeling.hub import expanded, locate_tokenizer
from ..tasks.task_file import TaskFile
from .accuracy import weight_errors
from .activation_rounding import activation_notes
from .decoder_graph import build_decoder
from .graph_builder import GraphBuilder
from .onnx_file import make_model, write_onnx
from .options import MIB, check_options, check_space
from .portable_check import PortableReference, make_portable_reference, verify_portable
from .portable_folder import PortableModel, portable_dtype
from .portable_graph import OPSET
from .progress import Progress
from .reference import Reference, make_reference, split_positions
from .report import ExportReport, PortableReport
from .side_files import copy_chat_template, copy_tokenizer, write_generation_config, write_tasks
from .source_checkpoint import Checkpoint
from .target_folder import check_target, target_folder
from .text_ids import read_text
from .text_stages import Calibration, run_calibration, run_evaluation
from .verify import Verification, verify_export
from .weight_format import WeightFormat
from .weight_formats import DEFAULT_DTYPE, KEEP, WeightOptions, make_weight_format
from .weights_writer import plan_weights, write_weights

__all__ = ["export_model"]

WEIGHTS_FILE = "weights.bin"
GRAPH_FILE = "decoder.onnx"
ROOM_FOR_SMALL_FILES = 4 * MIB
"""Graph, configs and report; the tokenizer may be larger."""


def export_model(
    source: str | Path,
    out: str | Path,
    *,
    dtype: str = DEFAULT_DTYPE,
    weight_block_size: int | None = None,
    keep_int8: Sequence[str] | None = None,
    rounding: str | None = None,
    calibration: str | Path | None = None,
    kv_cache_dtype: str = "float16",
    max_length: int | None = None,
    experts: str | None = None,
    evaluate: str | Path | None = None,
    portable: bool = False,
    tasks: str | Path | None = None,
    tokenizer: str | Path | None = None,
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
            the same logits); "int4" (smaller and faster still, at a loss that the report states); "float32",
            "float16" or "bfloat16" (16 bits take half of float32's size and time; products compute in float32);
            "keep" (whichever of these floats the checkpoint has, so that nothing is rounded).
        weight_block_size: so many inputs of a product with int8 or int4 weights are rounded together, and so many
            weights of int8 share a scale: 16, 32, 64, 128 or 256. None: 128, or less where 128 does not divide the
            width. int4 has a scale for each 16 weights in any case.
        keep_int8: which matrices of an int4 export have 8 bits: "lm_head" (the embedding too, which is the same
            table), "first", "last" (blocks) and parts of names ("mlp.c_proj", "h.3", "wpe"). None: those that win most
            accuracy per byte, measured on the calibration text, in room for the tables and one block
            (ExportReport.kept_int8).
        rounding: how an int4 export rounds: "nearest"; "search" (tries scales for the least sum of errors); "gptq"
            (also lets the weights of a row make up for each other's errors in products with the inputs that calibration
            text gives). None: gptq, the best and slowest.
        calibration: a UTF-8 text for gptq, for what int4 keeps in 8 bits and for the scales of an int8 cache, of the
            kind that the model is for: some 10,000 words are plenty. None: the model writes one itself, which does
            nearly as well.
        kv_cache_dtype: how keys and values are stored: "float16"; "float32" (twice the memory); "int8" (half of
            float16's, at a small loss; each channel has a scale).
        max_length: cuts the position table to so many rows, for devices that never need block_size of them;
            prompt and output together cannot be longer. None: all.
        experts: the experts of a mixture that stay, "LAYER:EXPERT,EXPERT;*:EXPERT,..." with * for every layer that is
            not named, or the path of a JSON file {"LAYER": [EXPERT, ...]}. The others are removed, with the router's
            rows for them. None: all stay.
        evaluate: a UTF-8 text on which the export is compared with the checkpoint in float32 (ExportReport.accuracy).
            None: 512 tokens that the model writes itself, unless verify is false.
        portable: write OUT/portable too, for other runtimes: the model in standard ONNX operators (opset 17), with
            weights of its own (float16 if these are, else the checkpoint's in float32) and a README.
        tasks: a file in the form of tasks.json, which says what the model can be asked and how. None: the checkpoint's
            own tasks.json, or SabiYarn's tasks as far as the vocabulary has their tags.
        tokenizer: folder or hub id of the model whose tokenizer the checkpoint uses: its tokenizer, the names of its
            special tokens and its chat template come along. None: the checkpoint has its own.
        force: replace OUT if it is an earlier export.
        verify: compare the graph with the torch model of the same (rounded) weights, and fail if it differs by
            more than rounding inside the products.
        progress: show a bar for each stage on stderr.

    Returns:
        The report that also stands in OUT/export_report.json.

    Raises:
        InvalidInputError: an option is not one of those allowed, or a text is empty or not UTF-8.
        CheckpointError: the checkpoint cannot be read, its tensors do not fit its config, or its model gives NaN or
            infinite numbers.
        ExportError: OUT exists or cannot be written, the disk is full, onnxruntime cannot run the model's
            shape, or the graph differs from the model.
    """
    weight_options = WeightOptions(
        dtype=dtype,
        block_size=weight_block_size,
        keep_int8=None if keep_int8 is None else tuple(keep_int8),
        rounding=rounding,
    )
    calibration, evaluate = (None if path is None else expanded(path) for path in (calibration, evaluate))
    check_options(weight_options, kv_cache_dtype, calibration, max_length)
    out, local = expanded(out), expanded(source)
    tasks = None if tasks is None else expanded(tasks)
    if tasks is not None:
        TaskFile.read(tasks)  # refuse it now, not after the calibration
    calibration_text, evaluation_text = (
        None if path is None else read_text(path, purpose)
        for path, purpose in ((calibration, "calibration"), (evaluate, "evaluation"))
    )
    check_target(out, local if local.is_dir() else None, force=force)
    stages = Progress(show=progress)
    with stages.stage("reading checkpoint", 1) as advance:
        texts = None if tokenizer is None else locate_tokenizer(tokenizer)
        checkpoint = Checkpoint.load(source, max_length, experts, texts)
        advance(1)
    config, folder = checkpoint.config, checkpoint.folder
    source_block_size, parameters = checkpoint.model.config.block_size, checkpoint.count_parameters()
    if dtype == KEEP:
        dtype = checkpoint.dtype
        weight_options = replace(weight_options, dtype=dtype)
    weight_format = make_weight_format(weight_options, config)
    calibrated = Calibration()
    if weight_options.calibrated or weight_options.chooses_kept or kv_cache_dtype == "int8":
        calibrated = run_calibration(
            checkpoint,
            weight_format,
            weight_options,
            calibration,
            calibration_text,
            kv_cache=kv_cache_dtype == "int8",
            stages=stages,
        )
    tensors = checkpoint.parameters()
    graph = build_decoder(tensors, config, weight_format, kv_cache_dtype, calibrated.kv_scales)
    nodes = len(graph.nodes)
    portable_model = PortableModel.build(tensors, config, dtype) if portable else None
    weight_bytes = plan_weights(graph.tensors.values()).header.end
    portable_bytes = 0 if portable_model is None else portable_model.data_nbytes
    check_space(out, weight_bytes + portable_bytes + ROOM_FOR_SMALL_FILES)

    with target_folder(out) as partial:
        notes = copy_tokenizer(texts or folder, partial, config.vocab_size)
        copy_chat_template(texts or folder, partial)
        notes += write_generation_config(folder, partial, config.vocab_size, texts)
        notes += write_tasks(folder, partial, tasks, texts)
        notes += calibrated.notes(weight_options, config)
        model_config = _write_model(graph, partial, config, dtype, kv_cache_dtype, stages)
        model_config.save(partial)
        portable_reference = None
        if portable_model is not None:
            _write_portable(portable_model, partial, stages)
            # before the weights of the torch model are rounded to those of the other graphs
            portable_reference = (
                make_portable_reference(checkpoint.model, config.block_size) if verify else None
            )
        weights = weight_errors(checkpoint.matrices(), weight_format)
        evaluation = (
            run_evaluation(
                checkpoint, partial, model_config, weight_format, evaluate, evaluation_text, stages
            )
            if verify or evaluate is not None
            else None
        )
        activations = {} if evaluation is None else evaluation.activations
        notes += activation_notes(activations)
        reference = _run_reference(checkpoint, weight_format, stages) if verify else None
        # onnxruntime makes its own copy of the weights: there is no need for two
        del (checkpoint, tensors, graph, portable_model, weight_format)
        verification = None if reference is None else _verify(partial, model_config, reference, stages)
        portable_report = (
            _verify_portable(partial, config, portable_dtype(dtype), portable_reference, stages)
            if portable
            else None
        )
        report = ExportReport(
            source=str(source),
            out=str(out),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            dtype=dtype,
            rounding=(rounding or "gptq") if dtype == "int4" else None,
            kv_cache_dtype=kv_cache_dtype,
            calibration=calibrated.text,
            calibration_tokens=calibrated.tokens,
            block_size=config.block_size,
            source_block_size=source_block_size,
            parameters=parameters,
            nodes=nodes,
            kv_bytes_per_token=model_config.kv_bytes_per_token,
            sizes_mib=_sizes_mib(partial),
            weights_hash=model_config.weights_hash,
            weights=weights,
            kept_int8=calibrated.kept,
            activations=activations,
            accuracy=None if evaluation is None else evaluation.accuracy,
            verification=verification,
            portable=portable_report,
            versions=_versions(),
            seconds=stages.seconds,
            notes=notes,
        )
        report.save(partial)
    return report


def _run_reference(checkpoint: Checkpoint, weight_format: WeightFormat, stages: Progress) -> Reference:
    checkpoint.round_weights(weight_format)
    block_size = checkpoint.config.block_size
    with stages.stage("running torch model", split_positions(block_size)[1] + 1, "token") as advance:
        return make_reference(checkpoint.model, block_size, progress=advance)


def _write_model(
    graph: GraphBuilder,
    folder: Path,
    config: GPTJXConfig,
    dtype: str,
    kv_cache_dtype: str,
    stages: Progress,
) -> ModelConfig:
    """Write weights.bin and the graph; returns the config that describes them."""
    layout = plan_weights(graph.tensors.values())
    with stages.stage("writing weights", layout.nbytes, "B") as advance:
        header = write_weights(layout, folder / WEIGHTS_FILE, progress=advance)
    metadata = {
        "weights_hash": header.weights_hash,
        "format_version": str(FORMAT_VERSION),
        "kv_cache_dtype": kv_cache_dtype,
        "block_size": str(config.block_size),  # no input of the graph shows it
    }
    with stages.stage("writing graph", 1) as advance:
        model = make_model(graph, "decoder", WEIGHTS_FILE, header.tensors, metadata)
        write_onnx(model, folder / GRAPH_FILE)
        advance(1)
    return ModelConfig(
        gptjx=config,
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        graph=GRAPH_FILE,
        graph_hash=hashlib.sha256((folder / GRAPH_FILE).read_bytes()).hexdigest(),
        weights_file=WEIGHTS_FILE,
        weights_bytes=(folder / WEIGHTS_FILE).stat().st_size,
        weights_hash=header.weights_hash,
    )


def _write_portable(model: PortableModel, folder: Path, stages: Progress) -> None:
    with stages.stage("writing portable", model.stored_nbytes, "B") as advance:
        model.write(folder, progress=advance)


def _verify_portable(
    folder: Path, config: GPTJXConfig, dtype: str, reference: PortableReference | None, stages: Progress
) -> PortableReport:
    if reference is None:
        return PortableReport(opset=OPSET, dtype=dtype, verification=None)
    with stages.stage("checking portable", 1) as advance:
        verification = verify_portable(folder, config, dtype, reference)
        advance(1)
    verification.check()
    return PortableReport(opset=OPSET, dtype=dtype, verification=verification)


def _verify(folder: Path, config: ModelConfig, reference: Reference, stages: Progress) -> Verification:
    generated = len(reference.tokens) - reference.prompt_length
    with stages.stage("checking graph", len(reference.tokens) + generated, "token") as advance:
        verification = verify_export(folder, config, reference, progress=advance)
    verification.check()
    return verification


def _sizes_mib(folder: Path) -> dict[str, float]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return {name: round(size / MIB, 3) for name, size in {**sizes, "total": sum(sizes.values())}.items()}


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("numpy", "onnx", "onnxruntime", "torch")}
    return {
        "python": platform.python_version(),
        "sabiyarn_edge": __version__,
        **packages,
        "machine": f"{platform.system()} {platform.machine()}",
    }
