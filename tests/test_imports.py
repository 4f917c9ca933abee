"""What may import what, and what importing costs."""

from __future__ import annotations

import ast
import graphlib
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
SERVER = ("server",)
"""What answers other machines, when it is asked for: sabiyarn-edge serve."""
LOOPS = ("calls/asynchronous.py",)
"""What serves callers that have an event loop."""


def run_python(code: str, **environment: str) -> str:
    """Standard output of a fresh interpreter."""
    variables = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=variables
    ).stdout


ORDER = (
    {"__main__"},
    {"cli"},
    {"evaluate", "ray"},
    {"jobs"},
    {"server", "bench", "doctor"},
    {"__init__"},
    {"generator"},
    {"chat"},
    {"text_session"},
    {"tasks"},
    {"calls"},
    {"constraints"},
    {"engine"},
    {"planning"},
    {"options"},
    {"text"},
    {"model_folder"},
    {"system"},
    {"errors", "_core", "_pyinstaller"},
)
"""Folders and modules of the package from top to bottom: each imports from what stands below it."""
APART = {
    "modeling": {
        "calls",
        "constraints",
        "options",
        "text",
        "model_folder",
        "system",
        "engine._decode",
        "errors",
        "_core",
    },
    "export": {
        "modeling",
        "chat.template",
        "tasks",
        "options",
        "text",
        "model_folder",
        "system",
        "engine.operators",
        "errors",
        "__init__",
    },
}
"""What a device does not have -> what of ours it imports. Nothing at run time imports it."""


def name_of(path: Path) -> str:
    """A file's module by its name inside the package; a package by its folder, ours by "__init__"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def modules() -> dict[str, Path]:
    """Every module of ours: Python's, and the compiled ones by their stubs."""
    return {name_of(path): path for suffix in ("*.pyi", "*.py") for path in PACKAGE.rglob(suffix)}


MODULES = modules()


def imported_modules(path: Path) -> tuple[set[str], set[str]]:
    """What a file imports at any depth, for type checkers too: ours by their names inside the package, and others."""
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.parent.relative_to(PACKAGE.parent).parts
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            first, _, rest = name.partition(".")
            if first != PACKAGE.name:
                others.add(first)
            elif rest in MODULES:
                ours.add(rest)
            else:  # a name in a module
                ours.add(rest.rpartition(".")[0] or "__init__")
    return ours, others


def networks(module: str) -> set[str]:
    """What could reach another machine among a module's imports; asyncio is two modules', for their event loops."""
    allowed = {"asyncio"} if module in ("calls.asynchronous", "jobs.openai_batch") else set()
    if module.split(".")[0] == "server":  # answers other machines, when it is asked for
        allowed = NETWORK
    return NETWORK & imported_modules(MODULES[module])[1] - allowed


def place_of(module: str) -> int:
    """How deep in ORDER a module stands."""
    folder = module.split(".")[0]
    (place,) = [place for place, names in enumerate(ORDER) if folder in names]
    return place


def runtime_modules() -> dict[str, Path]:
    """All that runs on a device: everything but modeling and export."""
    return {
        name: path for name, path in MODULES.items() if name.split(".")[0] not in {*APART, "_core_testing"}
    }


@pytest.mark.parametrize("module", runtime_modules())
def test_nothing_at_run_time_imports_what_a_device_lacks(module: str) -> None:
    assert not HEAVY & imported_modules(MODULES[module])[1] | networks(module)


@pytest.mark.parametrize("module", runtime_modules())
def test_imports_go_one_way(module: str) -> None:
    for imported in imported_modules(MODULES[module])[0]:
        if imported.split(".")[0] == module.split(".")[0]:
            continue
        if (module, imported) == ("cli.export", "export"):  # loads the exporter when it is called
            continue
        assert place_of(imported) > place_of(module), f"{module} imports {imported}"


@pytest.mark.parametrize("folder", APART)
def test_what_a_device_lacks_imports_what_it_may(folder: str) -> None:
    for module, path in MODULES.items():
        if module.split(".")[0] != folder:
            continue
        for imported in imported_modules(path)[0]:
            known = {imported, imported.split(".")[0]} & {folder, *APART[folder]}
            assert known, f"{module} imports {imported}"


def test_no_module_imports_itself_through_others() -> None:
    graph = {module: imported_modules(path)[0] - {module} for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_the_core_knows_neither_python_nor_onnxruntime() -> None:
    sources = Path(__file__).parents[1] / "csrc" / "core"
    files = [path for path in sources.rglob("*") if path.suffix in {".cpp", ".hpp"}]
    assert len(files) > 10
    for path in files:
        text = path.read_text(encoding="utf-8")
        for foreign in ("Python.h", "pybind11", "onnxruntime_c", "bindings/"):
            assert f"#include <{foreign}" not in text, path
            assert f'#include "{foreign}' not in text, path


@pytest.mark.parametrize("module", ["sabiyarn_edge", "sabiyarn_edge.cli", "sabiyarn_edge.doctor"])
def test_importing_the_package_loads_nothing_big(module: str) -> None:
    loaded = run_python(f"import sys, {module}; print(*sys.modules)").split()
    assert not {*HEAVY, "onnxruntime", "numpy", "tokenizers", "starlette", "asyncio"} & set(loaded)


def test_generating_loads_no_exporter(text_model: Path) -> None:
    code = (
        "import sys; from sabiyarn_edge import EdgeGenerator; "
        f"EdgeGenerator.from_pretrained({str(text_model)!r}).generate('a', max_new_tokens=2); print(*sys.modules)"
    )
    assert not {*HEAVY, "jinja2", "jsonschema", "llguidance", "pyarrow", "ray"} & set(
        run_python(code).split()
    )


def test_only_one_module_knows_the_hub() -> None:
    """It is asked for checkpoints whose name is no folder, by the export and by the torch model."""
    knowing = [
        name for name in MODULES if "huggingface_hub" in imported_modules(MODULES[name])[1] or networks(name)
    ]
    assert knowing == ["modeling.hub"]
