"""SABIYARN_EDGE_ISA: a lower instruction set for tests and reports, or an error that names those of the CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sabiyarn_edge import _core
from sabiyarn_edge.engine.operators import ISA_VARIABLE

CHILD = """
import onnxruntime
from sabiyarn_edge import _core
from sabiyarn_edge.engine.operators import register_operators
from sabiyarn_edge.errors import InvalidInputError
try:
    register_operators(onnxruntime.SessionOptions())
except InvalidInputError as error:
    print(error)
else:
    print(*_core.linear_kernels())
"""


def ask_child(name: str) -> str:
    environment = {**os.environ, ISA_VARIABLE: name}
    return subprocess.run(
        [sys.executable, "-c", CHILD], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_lower_set_leaves_out_those_above() -> None:
    usable = _core.linear_kernels()
    for at, name in enumerate(usable):
        assert ask_child(name).split() == usable[at:]


@pytest.mark.parametrize("name", ["avx9", "AVX2"])
def test_an_unknown_set_is_refused(name: str) -> None:
    usable = ", ".join(_core.linear_kernels())
    assert ask_child(name) == (
        f"SABIYARN_EDGE_ISA is {name!r}; this CPU has {usable}. Set one of these, or unset it."
    )


@pytest.mark.skipif("avx512_vnni" in _core.linear_kernels(), reason="this CPU has it")
def test_a_set_that_the_cpu_lacks_is_refused() -> None:
    assert ask_child("avx512_vnni").startswith("SABIYARN_EDGE_ISA is 'avx512_vnni'; this CPU has ")
