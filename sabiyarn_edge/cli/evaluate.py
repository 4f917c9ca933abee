"""sabiyarn-edge evaluate: measures models on a task with references, or exports beside each other."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from ..errors import InvalidInputError
from ..system.installation import install_command
from .batch import add_task_options, labels_of, slots_of
from .generate import add_decoding_options, decoding_options
from .loading import add_loading_options
from .parser import Parser
from .terminal import PROGRAM
from .text_lines import decoded_lines, opened

__all__ = ["add_to", "run"]

EPILOG = f"""\
The files have a text in each line (for a task with labels, --reference a label). Values stand with their interval of
95 % by paired bootstrap; * marks a difference from the first model with p < 0.05. Needs sacrebleu for texts:
{install_command("evaluate")}

examples:
  {PROGRAM} evaluate model-float32 model-int8 --task translate --to yor --source eng.txt --reference yor.txt
  {PROGRAM} evaluate model-int8 --task sentiment --source texts.txt --reference labels.txt --json
  {PROGRAM} evaluate --compare model-float32 model-int8 model-int4 --text corpus.txt
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="measure quality on texts with references, or compare exports",
        description="Measures each MODEL on a test set: chrF++, BLEU, accuracy, perplexity, speed and memory.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="model folders, or nano; the first is the baseline"
    )
    parser.add_argument("--source", metavar="FILE", help="texts, one in each line")
    parser.add_argument("--reference", metavar="FILE", help="what each line should become")
    parser.add_argument(
        "--compare", action="store_true", help="compare exports: agreement and divergence on a text"
    )
    parser.add_argument("--text", metavar="FILE", help="with --compare: texts, one in each line")
    add_task_options(parser.add_argument_group("task"))
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="resampled test sets (1000)")
    parser.add_argument("--rows", type=int, default=32, metavar="N", help="most texts at once (32)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with all answers")
    parser.add_argument(
        "--picture", metavar="FILE", help="draw the metrics, too (.svg, .png; needs matplotlib)"
    )
    add_decoding_options(parser)
    add_loading_options(parser, ("num_threads",))


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    report = _compare(arguments) if arguments.compare else _evaluate(arguments)
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print("\n".join(_compared(report) if arguments.compare else _evaluated(report)), flush=True)
    if arguments.picture is not None:
        from ..evaluate.picture import draw_report

        draw_report(report, arguments.picture)


def _compare(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..evaluate import compare_exports

    if arguments.text is None or arguments.picture is not None:
        arguments.parser.error("--compare needs --text FILE, and draws no picture")
    with opened(arguments.text) as file:
        return compare_exports(
            arguments.models, decoded_lines(file, arguments.text), threads=arguments.num_threads
        )


def _evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..evaluate import evaluate_models

    for name in ("source", "reference"):
        if getattr(arguments, name) is None:
            arguments.parser.error(f"--{name} FILE is needed (or --compare)")
    if arguments.picture is not None:
        from ..evaluate.picture import check_picture

        check_picture(arguments.picture)
    return evaluate_models(
        arguments.models,
        _lines(arguments.source),
        _lines(arguments.reference),
        task=arguments.task,
        slots=slots_of(arguments),
        labels=labels_of(arguments),
        options=decoding_options(arguments),
        samples=arguments.samples,
        threads=arguments.num_threads,
        rows=arguments.rows,
        told=lambda name: print(f"[running {name}]", file=sys.stderr, flush=True),
    )


def _lines(name: str) -> list[str]:
    with opened(name) as file:
        lines = list(decoded_lines(file, name))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise InvalidInputError(f"line {number} of {name} is empty. Take it out of both files.")
    return lines


def _evaluated(report: dict[str, Any]) -> Iterator[str]:
    """The report as a table."""
    models, metrics = report["models"], report["metrics"]
    columns = [["model", *models]]
    for metric in metrics:
        columns.append([metric, *(_estimate(model["metrics"][metric]) for model in models.values())])
    for key, title in (
        ("errors", "errors"),
        ("lines_per_second", "lines/s"),
        ("tokens_per_second", "tokens/s"),
        ("weights_mib", "weights, MiB"),
        ("private_mib", "private, MiB"),
    ):
        form = "d" if key == "errors" else ".1f"
        columns.append([title, *(f"{model[key]:{form}}" for model in models.values())])
    yield from _table(columns)
    yield ""
    yield f"{report['texts']} texts, {report['samples']} resampled test sets"
    for name, model in models.items():
        if left_out := model["references_left_out"]:
            yield f"reference perplexity of {name}: without {left_out} references, which are too long"
    yield from (f"{metric}: {signature}" for metric, signature in metrics.items() if signature)


def _estimate(found: dict[str, Any]) -> str:
    if found["low"] is None:  # nothing was measured
        return "-"
    star = "*" if found["p_value"] is not None and found["p_value"] < 0.05 else ""
    return f"{found['value']:.2f}{star} [{found['low']:.2f}, {found['high']:.2f}]"


def _compared(report: dict[str, Any]) -> Iterator[str]:
    columns = [["model", *report["models"]]]
    for title, form in (
        ("dtype", "{dtype}"),
        ("KV cache", "{kv_cache_dtype}"),
        ("weights, MiB", "{weights_mib:.1f}"),
        ("perplexity", "{perplexity:.3f}"),
        ("KL, nats", "{mean_kl_divergence:.5f}"),
        ("same likeliest token", "{top1_agreement:.2%}"),
    ):
        columns.append([title, *(form.format(**model) for model in report["models"].values())])
    yield from _table(columns)
    yield ""
    yield f"{report['tokens']} tokens, in pieces of {report['piece_tokens']}; divergence and agreement from the first"


def _table(columns: list[list[str]]) -> Iterator[str]:
    """Columns, the first of which is aligned to the left."""
    widths = [max(map(len, column)) for column in columns]
    for cells in zip(*columns, strict=True):
        first, *rest = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        yield "  ".join([first, *rest]).rstrip()
