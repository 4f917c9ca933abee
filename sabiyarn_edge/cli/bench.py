"""sabiyarn-edge bench: measures speed and memory of a model on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..errors import InvalidInputError
from .loading import add_loading_options, loading_arguments
from .parser import Parser
from .terminal import PROGRAM

__all__ = ["add_to", "as_text", "run"]

MIB = 2**20

EPILOG = f"""\
measured, each figure the median of several rounds:
  decode    time from token to token, with the past as long as the prompt
  first     time from the call to the first token: prefill and one choice
  CPU       CPU seconds of all cores per 100 tokens, a measure of energy
  floor     time to read the memory that one token needs: all weights, and keys and values of the past. Then its
            share of the decode time; above 100 % for a model that fits into the CPU's cache
  memory    "private" belongs to this process alone; "mapped" is shared with other processes and can be dropped

examples:
  {PROGRAM} bench sabiyarn-125m
  {PROGRAM} bench sabiyarn-125m --lengths 16 128 --seconds 5 --json > pi4.json
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure speed and memory on this machine",
        description="Measures a model on this machine, with random prompts.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("model", metavar="MODEL", help="model folder, or the name of a bundled model (nano)")
    parser.add_argument(
        "--lengths",
        type=int,
        nargs="+",
        metavar="N",
        help="prompt lengths, tokens (default: 16 128 1024 4000, as far as the model's positions go)",
    )
    parser.add_argument("--steps", type=int, default=16, metavar="N", help="tokens after each prompt (16)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="prompts of each length (5)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        metavar="S",
        help="begin no further prompt of a length after this time (20)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_loading_options(parser, ("num_threads", "low_power", "resident"))


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from ..bench.measure import LENGTHS, measure
    from ..generator import find_model

    for name, least in (("steps", 1), ("rounds", 1)):
        if getattr(arguments, name) < least:
            raise InvalidInputError(f"--{name} is {getattr(arguments, name)}; it must be at least {least}.")
    lengths = arguments.lengths or LENGTHS
    if min(lengths) < 1:
        raise InvalidInputError(f"--lengths has {min(lengths)}; a prompt has at least 1 token.")
    shown = sys.stderr.isatty()

    def progress(stage: str) -> None:
        if shown:
            sys.stderr.write(f"\r\x1b[Kmeasuring {stage} ...")
            sys.stderr.flush()

    result = measure(
        find_model(arguments.model),
        lengths=sorted(set(lengths)),
        steps=arguments.steps,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        progress=progress,
        **loading_arguments(arguments),
    )
    if shown:
        sys.stderr.write("\r\x1b[K")
    print(json.dumps(result, ensure_ascii=False, indent=1) if arguments.json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """Return the result as text for people."""
    machine, bandwidth = result["machine"], result["bandwidth"]
    ((name, engine),) = result["engines"].items()
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    lines = [
        f"{machine['cpu']} ({machine['instruction_set']}), {machine['cpus']} CPUs, {machine['system']}, "
        f"{machine['date']}",
        versions,
        f"{name}: {engine['threads']} threads, KV cache {engine['kv_cache_dtype']}, "
        f"{engine['disk_bytes'] / MIB:.1f} MiB on disk, loaded in {engine['load_seconds']['median']:.2f} s "
        f"(at first {engine['first_load_seconds']:.2f} s)",
        f"memory read: {bandwidth['best'] / 1e9:.1f} GB/s with {bandwidth['threads']} threads",
        "",
        "prompt   decode ms/token          prefill   first token   CPU s per    floor  of the",
        "tokens   median    p10    p90     tokens/s            ms  100 tokens       ms  bandwidth",
    ]
    for length, figures in engine["lengths"].items():
        decode = figures["decode_ms"]
        lines.append(
            f"{length:>6} {decode['median']:>8.2f} {decode['p10']:>6.2f} {decode['p90']:>6.2f} "
            f"{figures['prefill_tokens_per_second']:>12.0f} {figures['first_token_ms']['median']:>13.1f} "
            f"{figures['cpu_seconds_per_100_tokens']:>11.2f} {figures['floor_ms']:>8.2f} "
            f"{figures['fraction_of_bandwidth']:>9.0%}"
        )
    beams = engine["beams"]
    lines += [
        "",
        f"prompt of {beams['prompt_tokens']}, {beams['num_beams']} beams: {beams['step_ms']['median']:.2f} ms per "
        f"step; of a greedy step {engine['outside_run_us']['median']:.0f} us are not onnxruntime's",
        "",
        "memory, MiB                      private   mapped     peak",
    ]
    for stage, sizes in engine["memory"].items():
        columns = (
            f"{sizes[key] / MIB:.1f}" if key in sizes else "-" for key in ("anonymous", "mapped", "peak")
        )
        lines.append(f"{stage.replace('_', ' '):<32}" + "".join(f"{column:>9}" for column in columns))
    if result["left_out_lengths"]:
        left_out = ", ".join(map(str, result["left_out_lengths"]))
        lines += ["", f"left out, longer than the model's {engine['positions']} positions: {left_out}"]
    lines += ["", f"not in the figures: {result['excluded']}"]
    return "\n".join(lines)
