"""What may import what, and what importing costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sabiyarn_edge

PACKAGE = Path(sabiyarn_edge.__file__).parent
HEAVY = {"torch", "onnx", "safetensors", "huggingface_hub", "transformers", "tqdm"}
"""What a device does not have."""
NETWORK = {
    "asyncio",
    "ftplib",
    "http",
    "requests",
    "smtplib",
    "socket",
    "socketserver",
    "ssl",
    "urllib",
    "urllib3",
}
"""What could reach another machine."""


def run_python(code: str, **environment: str) -> str:
    """Standard output of a fresh interpreter."""
    variables = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=variables
    ).stdout


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports at any depth, absolute ones by their first name, ours as "sabiyarn_edge.x"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.parent.relative_to(PACKAGE.parent).parts
            base = package[: len(package) - node.level + 1] if node.level else ()
            found.add(".".join([*base, *([node.module] if node.module else [])]))
            found |= {".".join([*base, alias.name]) for alias in node.names if node.level and not node.module}
    return {name if name.startswith("sabiyarn_edge") else name.split(".")[0] for name in found}


def runtime_files() -> list[Path]:
    """All that runs on a device: everything but modeling, export and the training of nano."""
    return [
        path
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in {"modeling", "export", "models"}
    ]


@pytest.mark.parametrize("path", runtime_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_at_run_time_imports_what_a_device_lacks(path: Path) -> None:
    imported = imported_modules(path)
    assert not imported & (HEAVY | NETWORK)
    if path.parent.name != "cli":  # its export command loads the exporter when it is called
        assert not any(
            name.startswith(("sabiyarn_edge.export", "sabiyarn_edge.modeling")) for name in imported
        )


def test_the_core_knows_neither_python_nor_onnxruntime() -> None:
    sources = Path(__file__).parents[1] / "csrc" / "core"
    files = [path for path in sources.iterdir() if path.suffix in {".cpp", ".hpp"}]
    assert len(files) > 10
    for path in files:
        text = path.read_text(encoding="utf-8")
        for foreign in ("Python.h", "pybind11", "onnxruntime_c", "bindings/"):
            assert f"#include <{foreign}" not in text, path
            assert f'#include "{foreign}' not in text, path


@pytest.mark.parametrize("module", ["sabiyarn_edge", "sabiyarn_edge.cli", "sabiyarn_edge.doctor"])
def test_importing_the_package_loads_nothing_big(module: str) -> None:
    loaded = run_python(f"import sys, {module}; print(*sys.modules)").split()
    assert not {*HEAVY, "onnxruntime", "numpy", "tokenizers"} & set(loaded)


def test_generating_loads_no_exporter(text_model: Path) -> None:
    code = (
        "import sys; from sabiyarn_edge import EdgeGenerator; "
        f"EdgeGenerator.from_pretrained({str(text_model)!r}).generate('a', max_new_tokens=2); print(*sys.modules)"
    )
    assert not HEAVY & set(run_python(code).split())


def test_only_one_module_knows_the_hub() -> None:
    """It is asked for checkpoints whose name is no folder, by the export and by the torch model."""
    knowing = [
        path for path in PACKAGE.rglob("*.py") if {"huggingface_hub", *NETWORK} & imported_modules(path)
    ]
    assert [path.relative_to(PACKAGE).as_posix() for path in knowing] == ["modeling/hub.py"]
