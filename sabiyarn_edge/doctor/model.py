"""Checks that a model is complete, and that it fits into this memory."""

from __future__ import annotations

from ..errors import SabiYarnError
from ..model_folder.config import ModelConfig
from ..model_folder.missing_parts import missing_parts
from ..system.available_memory import AvailableMemory
from .finding import Finding
from .system import MIB, System

__all__ = ["examine_model"]

POSITIONS = 1024
"""Positions that the memory is planned for, or the model's if it has fewer."""

BASE = 26 * MIB
"""Bytes of Python with numpy and onnxruntime imported, which the plan leaves out (Python 3.11, x86-64)."""


def examine_model(system: System, model: str) -> Finding:
    """Read every file of the model, all bytes against their hashes, and hold its plan against the memory."""
    try:
        from ..generator import find_model
        from ..model_folder.weights_file import hash_weights_file
        from ..options.generation_config import GenerationConfig
        from ..planning.memory_plan import plan_memory
        from ..tasks.task_file import TaskFile
        from ..text.tokenizer import TOKENIZER_FILE, Tokenizer
    except ImportError as error:
        text = f"{model} is not looked at, since the package does not load ({error})"
        return Finding("model", "problem", text, "Solve the problems above first.")
    try:
        folder = find_model(model)
        config = ModelConfig.load(folder)
        config.read_graph(folder)
        weights = folder / config.weights_file
        weights_hash = hash_weights_file(weights)
        if weights_hash != config.weights_hash:
            text = (
                f"{weights} is damaged or belongs to another model: its tensors have the hash {weights_hash[:12]}..., "
                f"and config.json says {config.weights_hash[:12]}..."
            )
            return Finding("model", "problem", text, "Copy the model folder again.")
        GenerationConfig.load(folder)
        TaskFile.load(folder)
        has_tokenizer = (folder / TOKENIZER_FILE).exists()
        if has_tokenizer:
            Tokenizer.from_file(folder / TOKENIZER_FILE)
        positions = min(POSITIONS, config.gptjx.block_size)
        plan = plan_memory(folder, max_length=positions)
        lazy = plan_memory(folder, max_length=2, prompt_length=1)
    except SabiYarnError as error:
        return Finding("model", "problem", str(error), "Copy or export the model again.")
    own, mapped = BASE + plan.peak, plan.weights_mapped
    available = AvailableMemory.read(system.root).here
    lacking = missing_parts(folder)
    facts = {
        "folder": str(folder),
        "plan": plan.to_dict(),
        "own": own,
        "mapped": mapped,
        "available": available,
        "missing": lacking,
    }
    text = (
        f"{folder}: {own / MIB:.0f} MiB of private memory for {positions} positions (Python and libraries included), "
        f"and {mapped / MIB:.0f} MiB of mapped weights"
    )
    if lacking:
        text += f"; it has no {', no '.join(lacking)}"
    if not has_tokenizer and (available is None or own <= available):
        return Finding("model", "warning", text, "Put the checkpoint's tokenizer.json into it.", facts)
    if available is None:
        return Finding("model", "ok", text, facts=facts)
    text += f"; {available / MIB:.0f} MiB are available"
    if own > available:
        if BASE + lazy.peak > available:
            remedy = "Loading takes more: add swap, end other programs, or export it with fewer bits (--dtype int4)."
        else:
            remedy = "Give a smaller --max-new-tokens or --kv-window; `sabiyarn-edge plan MODEL --max-length N` tells."
        return Finding("model", "problem", text, remedy, facts)
    if own + mapped > available:
        remedy = (
            "It runs, but the weights are read from the disk again and again: end other programs, or export it with "
            "fewer bits (--dtype int4)."
        )
        return Finding("model", "warning", text, remedy, facts)
    return Finding("model", "ok", text, facts=facts)
