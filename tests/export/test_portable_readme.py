"""The README of portable/: its program, run as it stands where our package cannot be imported."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.export.models import export_tiny

WITHOUT_OUR_PACKAGE = """\
import sys
sys.modules["sabiyarn_edge"] = None  # an import of it raises ModuleNotFoundError
exec(compile(sys.stdin.read(), "README.md", "exec"))
"""


def program_of(readme: str) -> str:
    [program] = re.findall(r"^```python\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL)
    return program


def value_in(program: str, name: str) -> Any:
    """The constant that the program assigns to `name`."""
    [value] = [
        node.value
        for node in ast.parse(program).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return ast.literal_eval(value)


@torch.inference_mode()
def continued(model: GPTJXForCausalLM, prompt: list[int], new: int) -> list[int]:
    """Greedily, by a full uncached forward for each token."""
    tokens = list(prompt)
    for _ in range(new):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize(
    ("block_size", "lengths", "new"),
    [(64, [4, 2], 12), (9, [4, 2], 6), (3, [3, 2], 1), (2, [2, 1], 1)],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_the_program_decodes(
    tmp_path: Path, dtype: str, block_size: int, lengths: list[int], new: int
) -> None:
    folder = (
        export_tiny(tmp_path, dtype=dtype, max_length=block_size, portable=True, verify=False).folder
        / "portable"
    )
    program = program_of((folder / "README.md").read_text(encoding="utf-8"))
    prompts = value_in(program, "prompts")
    assert [len(prompt) for prompt in prompts] == lengths
    assert value_in(program, "new_tokens") == new
    output = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_OUR_PACKAGE],
        input=program,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert output.stderr == ""
    model = GPTJXForCausalLM.from_pretrained(tmp_path / "checkpoint")
    printed = [[int(token) for token in line.split()] for line in output.stdout.splitlines()]
    assert printed == [continued(model, prompt, new) for prompt in prompts]


def test_the_facts_are_the_models(tmp_path: Path) -> None:
    shape = {"n_layer": 3, "n_heads": 3, "n_embd": 48, "vocab_size": 101}
    folder = export_tiny(tmp_path, shape, dtype="float16", portable=True, verify=False).folder
    readme = (folder / "portable" / "README.md").read_text(encoding="utf-8")
    assert "<" not in readme.replace("keys < padding", "")  # every number is filled in
    for fact in (
        "opset 17 (IR version 8)",
        "3 layers, 3 heads of 16, width 48, 101 tokens and 64\npositions",
        "stored as float16 and widened to float32 by `Cast`",
        "each row, 0 to 100 |",
        "text, 0 to 63 |",
        "`[batch, 3, past, 16]` | of layer i = 0 to 2:",
        "`[batch, sequence, 101]`",
    ):
        assert fact in readme
