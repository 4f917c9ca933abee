"""sabiyarn-edge plan: predicts how much memory a model will take, without loading it."""

from __future__ import annotations

import argparse
import json

from .loading import add_loading_options, loading_arguments
from .parser import Parser
from .terminal import PROGRAM

__all__ = ["add_to", "run"]

EPILOG = f"""\
Memory is the process's memory above `import onnxruntime`, without mapped files, which the system can drop.
--memory-limit of `{PROGRAM} generate` refuses what takes more than such a number.

examples:
  {PROGRAM} plan FOLDER --max-length 1024
  {PROGRAM} plan FOLDER --max-length 4096 --prompt-length 256 --beams 5 --json
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "plan",
        help="tell how much memory a model will take",
        description="Predicts weights, KV cache, scratch memory and the peak of one call; loads nothing.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("model", metavar="MODEL", help="model folder, or the name of a bundled model (nano)")
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="positions of a row, prompt and output (default: all)"
    )
    parser.add_argument(
        "--prompt-length", type=int, metavar="N", help="of them the prompt's (default: all but one)"
    )
    parser.add_argument("--batch", type=int, metavar="B", default=1, help="prompts at once (default 1)")
    parser.add_argument(
        "--beams", type=int, metavar="K", default=1, help="beams or outputs of each prompt (default 1)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, in bytes")
    add_loading_options(parser, ("resident", "kv_window"), title="as it will be loaded")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from ..generator import EdgeGenerator

    plan = EdgeGenerator.plan(
        arguments.model,
        max_length=arguments.max_length,
        prompt_length=arguments.prompt_length,
        batch=arguments.batch,
        beams=arguments.beams,
        **loading_arguments(arguments),
    )
    print(json.dumps(plan.to_dict()) if arguments.json else plan)
