"""The stubs of the compiled modules name what the modules have, and no more."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import sabiyarn_edge
from sabiyarn_edge import _core, _core_testing


@pytest.mark.parametrize("module", [_core, _core_testing], ids=lambda module: module.__name__)
def test_a_stub_names_what_its_module_has(module: ModuleType) -> None:
    stub = Path(sabiyarn_edge.__file__).with_name(f"{module.__name__.split('.')[-1]}.pyi")
    if not stub.is_file():
        pytest.skip(f"{stub.name} is not installed: wheels leave it out")
    stated = {
        node.name: node
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert set(stated) == {name for name in dir(module) if not name.startswith("__")}
    for name, node in stated.items():
        if isinstance(node, ast.ClassDef):
            members = {n.name if isinstance(n, ast.FunctionDef) else ast.unparse(n.target) for n in node.body}
            found = {
                member
                for member in vars(getattr(module, name))
                if not member.startswith("__") or member in {"__init__", "__len__", "__getitem__"}
            }
            assert members == found - {"_pybind11_conduit_v1_"}, name
        else:
            assert inspect.isbuiltin(getattr(module, name)), name
