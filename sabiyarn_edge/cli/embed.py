"""sabiyarn-edge embed: gives a vector for each line of a file."""

from __future__ import annotations

import argparse
import json

from ..calls.pooling import POOLINGS
from .parser import Parser
from .terminal import PROGRAM
from .text_lines import add_arguments, lines_of, opened

__all__ = ["add_to", "run"]

EPILOG = f"""\
output: one JSON object for each text: its line number and its embedding, n_embd numbers

example:
  {PROGRAM} embed --normalize corpus.txt > vectors.jsonl
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "embed",
        help="vectors of texts",
        description="Gives each line of FILE (UTF-8; empty lines are skipped) as a vector: the model's hidden states.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    add_arguments(parser)
    parser.add_argument(
        "--pooling",
        choices=POOLINGS,
        default="mean",
        help="mean of all tokens' hidden states (default), or the last token's",
    )
    parser.add_argument("--normalize", action="store_true", help="vectors of length 1")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from ..generator import EdgeGenerator

    with opened(arguments.file) as file:
        generator = EdgeGenerator.from_pretrained(
            arguments.model,
            num_threads=arguments.threads,
        )
        numbers: list[int] = []  # of the line at hand
        for text in lines_of(file, numbers):
            vector = generator.embed(text, pooling=arguments.pooling, normalize=arguments.normalize)
            print(json.dumps({"line": numbers.pop(), "embedding": vector.tolist()}), flush=True)
