"""The engines that are compared, and how the model of each is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import models

__all__ = ["ENGINES", "NAMES", "EngineSpec"]


@dataclass(frozen=True)
class EngineSpec:
    """An engine and how its model is made."""

    name: str
    module: str
    make: Callable[[Path, str], Path]


def _ours(name: str, label: str = "", **options: Any) -> EngineSpec:
    return EngineSpec(
        f"sabiyarn_edge {label or name}",
        "sabiyarn",
        lambda work, shape: models.export(work, shape, name, **options),
    )


def _onnxruntime(engine: str, module: str, name: str, label: str = "", **options: Any) -> EngineSpec:
    def make(work: Path, shape: str) -> Path:
        folder = models.onnxruntime_folder(work, shape, name, **options)
        return models.genai_model(work, folder) if module == "genai" else folder

    return EngineSpec(f"{engine} {label or name}", module, make)


ENGINES = (
    _ours("float32", dtype="float32"),
    _ours("float16", dtype="float16"),
    _ours("int8", dtype="int8"),
    _ours("int8-kv8", "int8, int8 cache", dtype="int8", kv_cache_dtype="int8"),
    _ours("int4", dtype="int4", keep_int8=["lm_head", "wpe", "first"], rounding="search"),
    _ours("int4-all", dtype="int4", keep_int8=["wpe"], rounding="search"),
    EngineSpec("llama.cpp F32", "llama_cpp", lambda w, s: models.gguf_file(w, s, "F32")),
    EngineSpec("llama.cpp Q8_0", "llama_cpp", lambda w, s: models.gguf_file(w, s, "Q8_0")),
    EngineSpec("llama.cpp Q4_0", "llama_cpp", lambda w, s: models.gguf_file(w, s, "Q4_0")),
    EngineSpec("CTranslate2 int8", "ctranslate2", models.ctranslate2_model),
    _onnxruntime("onnxruntime-genai", "genai", "int8", bits=8),
    _onnxruntime("onnxruntime-genai", "genai", "int4-all", bits=4),
    _onnxruntime(
        "onnxruntime-genai",
        "genai",
        "int4-32",
        "int4, blocks of 32",
        bits=4,
        block_size=32,
    ),
    EngineSpec("transformers float32", "transformers", models.gpt2_folder),
    _onnxruntime("onnxruntime, concatenating", "concatenation", "int8", bits=8),
)
NAMES = tuple(engine.name for engine in ENGINES)
