"""sabiyarn-edge export: turns a checkpoint into a model folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ExportError
from ..system.installation import install_command
from .parser import Parser
from .terminal import PROGRAM

if TYPE_CHECKING:
    from ..export import Accuracy, ExportReport, KeptMatrix, PortableReport

__all__ = ["add_to", "run"]

EPILOG = f"""\
Needs torch and onnx: {install_command("export")}

examples:
  {PROGRAM} export BeardedMonster/SabiYarn-125M sabiyarn-125m
  {PROGRAM} export ./checkpoint ./model --max-length 1024 --dtype int4
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "export",
        help="turn a checkpoint into a model folder",
        description="Turns a GPTJX checkpoint into a folder that runs on devices, and checks it against torch.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "source", metavar="SOURCE", help="checkpoint folder (config.json and weights) or hub id"
    )
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument(
        "--dtype",
        default="int8",
        metavar="TYPE",
        help="how weights are stored: int8 (default: a quarter of float32's size, and faster; nearly the same logits), "
        "int4 (smaller and faster still, at a loss that the report states), float32, float16, bfloat16, or keep (the "
        "checkpoint's own of these floats)",
    )
    parser.add_argument(
        "--block-size",
        type=int,
        metavar="N",
        help="inputs of products with int8 and int4 weights that are rounded together, and weights of int8 that share "
        "a scale: 16, 32, 64, 128 or 256 (default: 128, or less where 128 does not divide the width)",
    )
    parser.add_argument(
        "--keep-int8",
        metavar="LIST",
        help="what has 8 bits in an int4 export, separated by commas: lm_head (the embedding too), first, last "
        "(block), parts of names such as mlp.c_proj or h.3, or none (default: what wins most accuracy per byte)",
    )
    parser.add_argument(
        "--rounding",
        metavar="HOW",
        help="how int4 rounds: nearest, search (for scales) or gptq (default: corrects each weight's error in "
        "those after it; the best and slowest)",
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="text (UTF-8) like what the model will read, for gptq, for what int4 keeps in 8 bits and for the scales "
        "of an int8 KV cache (default: the model writes one)",
    )
    parser.add_argument(
        "--evaluate",
        metavar="FILE",
        help="text (UTF-8) on which perplexity is compared with float32 (default: the model writes one)",
    )
    parser.add_argument(
        "--kv-cache-dtype",
        "--kv-dtype",
        default="float16",
        metavar="TYPE",
        help="how keys and values are kept: float16 (default), int8 (half the memory, a small loss) or float32 (twice)",
    )
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="cut the position table to N positions (default: all)"
    )
    parser.add_argument(
        "--experts",
        metavar="LIST",
        help="experts of a mixture that stay, as LAYER:EXPERT,EXPERT;*:EXPERT,... (* is every other layer: "
        "'0:0,1;*:0,1,2'), or a JSON file; the others are removed (default: all stay)",
    )
    parser.add_argument(
        "--portable",
        action="store_true",
        help="also write OUT/portable, for other runtimes: the model in standard ONNX operators, with weights of its "
        "own and a README",
    )
    parser.add_argument(
        "--tasks",
        metavar="FILE",
        help="tasks.json of the model: its tasks' templates, languages and labels (default: the checkpoint's own, or "
        "SabiYarn's as far as the vocabulary has their tags)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="ID|FOLDER",
        help="model whose tokenizer the checkpoint uses, if it has none of its own, as a folder or hub id; its special "
        "tokens and chat template come along",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it is an earlier export")
    parser.add_argument("--no-verify", action="store_true", help="skip the comparison with torch")
    parser.add_argument("--quiet", action="store_true", help="no progress bars on standard error")
    parser.add_argument(
        "--json", action="store_true", help="print export_report.json's content instead of a summary"
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    try:
        from ..export import export_model
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sabiyarn_edge"):
            raise
        raise ExportError(
            f"export needs the package {error.name}, which is not installed. Run: {install_command('export')}"
        ) from error

    report = export_model(
        arguments.source,
        arguments.out,
        dtype=arguments.dtype,
        weight_block_size=arguments.block_size,
        keep_int8=_rules(arguments.keep_int8),
        rounding=arguments.rounding,
        evaluate=arguments.evaluate,
        kv_cache_dtype=arguments.kv_cache_dtype,
        calibration=arguments.calibration,
        max_length=arguments.max_length,
        experts=arguments.experts,
        portable=arguments.portable,
        tasks=arguments.tasks,
        tokenizer=arguments.tokenizer,
        force=arguments.force,
        verify=not arguments.no_verify,
        progress=not arguments.quiet,
    )
    print(json.dumps(report.to_dict(), ensure_ascii=False) if arguments.json else _summary(report))


def _accuracy(report: ExportReport, accuracy: Accuracy) -> list[str]:
    """Return the lines on what the rounding of the weights costs."""
    worst = max(report.weights, key=lambda name: report.weights[name].relative_error)
    error = report.weights[worst]
    return [
        f"compared with float32 on {accuracy.text}: perplexity {accuracy.perplexity:.5g} instead of "
        f"{accuracy.perplexity_float32:.5g} ({accuracy.perplexity_change:+.2%}), mean KL divergence "
        f"{accuracy.mean_kl_divergence:.2g} nats, same likeliest token after {accuracy.top1_agreement:.1%} of "
        f"{accuracy.tokens} tokens",
        f"roughest matrix: {worst} ({error.storage}), off by {error.relative_error:.2%} of its size and at most "
        f"{error.largest_error:.2g}",
    ]


def _kept(kept: Sequence[KeptMatrix]) -> str:
    """Return the line on what an int4 export keeps in 8 bits."""
    names = [matrix.name.removeprefix("transformer.").removesuffix(".weight") for matrix in kept]
    return f"in 8 bits, since that wins most accuracy per byte: {', '.join(names) or 'nothing'}"


def _portable(portable: PortableReport) -> str:
    check = portable.verification
    difference = (
        "not compared with torch"
        if check is None
        else f"largest logit difference from the checkpoint in torch {check.largest_difference:.2g} (bound "
        f"{check.difference_bound:.2g})"
    )
    return f"portable: standard operators of opset {portable.opset}, {portable.dtype} weights; {difference}"


def _rules(text: str | None) -> list[str] | None:
    """--keep-int8's value: None is the default, "none" the empty list."""
    if text is None:
        return None
    return [rule.strip() for rule in text.split(",") if rule.strip() not in ("", "none")]


def _summary(report: ExportReport) -> str:
    files = ", ".join(f"{name} {size:.1f}" for name, size in report.sizes_mib.items() if name != "total")
    cut = f", cut from {report.source_block_size}" if report.block_size < report.source_block_size else ""
    lines = [
        f"{report.out}: {report.sizes_mib['total']:.1f} MiB ({files})",
        f"{report.parameters:,} parameters as {report.dtype}; {report.block_size} positions{cut}; KV cache "
        f"{report.kv_cache_dtype}, {report.kv_bytes_per_token:,} bytes per token",
    ]
    if report.kept_int8 is not None:
        lines.append(_kept(report.kept_int8))
    if report.accuracy is not None:
        lines += _accuracy(report, report.accuracy)
    check = report.verification
    if check is None:
        lines.append("not compared with torch")
    else:
        worst = max(check.largest_prefill_difference, check.largest_decode_difference)
        # Where two experts' scores are nearly equal, a few positions differ by more than rounding.
        held = "median of the largest logit differences" if check.routed else "largest logit difference"
        found = check.median_difference if check.routed else worst
        lines.append(
            f"compared with torch on the same weights: {held} {found:.2g} (bound "
            f"{check.difference_bound:.2g}, spread of logits {check.logit_spread:.2g}); greedy choice agrees for "
            f"{check.greedy_agreement} of {check.generated_tokens} tokens"
        )
    if report.portable is not None:
        lines.append(_portable(report.portable))
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])
