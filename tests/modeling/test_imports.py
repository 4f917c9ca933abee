"""What importing and loading a model brings along."""

from __future__ import annotations

import subprocess
import sys

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
