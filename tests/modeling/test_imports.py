"""What importing and loading a model brings along."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from sabiyarn_edge import modeling
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint

CODE = """
import sys
from sabiyarn_edge.modeling import GPTJXForCausalLM
GPTJXForCausalLM.from_pretrained(sys.argv[1])
print(*sorted({"transformers", "onnx", "onnxruntime", "huggingface_hub", "tokenizers"} & sys.modules.keys()))
"""


def test_loading_needs_torch_and_safetensors_only(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    done = subprocess.run([sys.executable, "-c", CODE, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_modules_import_each_other_in_one_direction():
    """At any depth: imports inside functions and for type checkers count too."""
    graph = {}
    for path in Path(modeling.__file__).parent.glob("*.py"):
        siblings = {
            node.module
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.level == 1
        }
        graph[path.stem] = siblings
    assert len(graph) > 10
    assert graph["model"] >= {"checkpoint", "generation", "network"}
    TopologicalSorter(graph).prepare()  # raises CycleError
