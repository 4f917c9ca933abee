"""Tests on a device: which files can run there, and where models come from that only a bigger machine can export.

A device has neither torch nor onnx, and a wheel has no sabiyarn_edge._core_testing. Where one of them is missing, test
files that import it (themselves, or through what they import) are left out. Exports are made once on a machine that
has both, and kept in a folder:

    SABIYARN_EDGE_TEST_EXPORTS=kept pytest        with torch: keeps a copy of each tiny export
    SABIYARN_EDGE_TEST_EXPORTS=kept pytest        without: takes the copies; a test whose export is missing is skipped
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any

OPTIONAL = (
    *("torch", "onnx", "safetensors", "transformers", "sabiyarn_edge._core_testing"),
    *("starlette", "uvicorn", "msgspec", "openai", "httpx", "prometheus_client"),
    *("jinja2", "jsonschema", "llguidance", "sacrebleu"),
)
"""What only exports, comparisons, the server, grammars and tests need."""

LACKING = frozenset(name for name in OPTIONAL if importlib.util.find_spec(name) is None)
"""Of it, what is not installed here."""

EMULATED = "QEMU_CPU" in os.environ
"""Whether qemu runs this Python: its own memory, which grows with what it translates, is counted with Python's, and it
keeps no limit of addresses. Set by tests/campaigns/arm."""

OURS = ("tests", "sabiyarn_edge")


def needs(path: Path, lacking: frozenset[str] = LACKING) -> str | None:
    """The first module of `lacking` that importing `path` would import, at any depth; None if it can be imported."""
    if not lacking:
        return None
    waiting, seen = [path], {path}  # packages import their modules, and these the package: each file once
    while waiting:
        for module in imported_when_loaded(waiting.pop()):
            first = module.split(".")[0]
            if first in lacking or module in lacking:
                return module
            new = set(files_of(module)) - seen if first in OURS else set()
            waiting += new
            seen |= new
    return None


@functools.cache
def imported_when_loaded(path: Path) -> tuple[str, ...]:
    """Names in the import statements at the top level of a file, relative ones made absolute."""
    root = path.parent
    while (root / "__init__.py").exists():
        root = root.parent
    package = path.parent.relative_to(root).parts
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(found)


@functools.cache
def files_of(module: str) -> tuple[Path, ...]:
    """The files that importing one of our modules loads: its packages and itself, as far as they are files."""
    first, *rest = module.split(".")
    spec = importlib.util.find_spec(first)
    if spec is None or not spec.submodule_search_locations:
        return ()
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    found = []
    for depth in range(len(rest) + 1):
        for folder in folders:
            stem = folder.joinpath(*rest[:depth])
            found += [file for file in (stem / "__init__.py", stem.with_suffix(".py")) if file.is_file()]
    return tuple(found)


def kept_export(shape: dict[str, Any], options: dict[str, Any]) -> Path | None:
    """Where the export of a tiny model of `shape` with `options` is kept, or None where none are."""
    folder = os.environ.get("SABIYARN_EDGE_TEST_EXPORTS")
    if not folder:
        return None
    key = repr((sorted(shape.items()), sorted(options.items())))
    return Path(folder) / hashlib.sha256(key.encode()).hexdigest()[:16]
