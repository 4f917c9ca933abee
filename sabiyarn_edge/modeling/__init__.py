"""GPTJX in PyTorch: the reference that exports are checked against, and the model that training uses.

Needs torch (and safetensors for files): the extra `export`. The device never imports this
package.
"""

from __future__ import annotations

from ..model_folder.config import GPTJXConfig
from .model import GPTJXForCausalLM
from .outputs import GPTJXGenerateOutput, GPTJXOutput

__all__ = ["GPTJXConfig", "GPTJXForCausalLM", "GPTJXGenerateOutput", "GPTJXOutput"]
