"""sabiyarn-edge generate: continues a prompt, on standard output as the text is produced."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import InvalidInputError, SessionFileError, shortened, shown
from ..system.json_text import parse_json
from ..system.regular_file import read_file_or_pipe, read_to_end
from .loading import add_loading_options, add_model_option, load
from .parser import LONGEST_MESSAGE, Parser
from .prompt_note import PromptNote
from .terminal import PROGRAM

if TYPE_CHECKING:
    from ..calls.result import GenerationResult
    from ..generator import EdgeGenerator
    from ..options.generation_config import GenerationConfig
    from ..text_session import Session

__all__ = [
    "add_any_option",
    "add_decoding_options",
    "add_to",
    "as_utf8",
    "assignment",
    "decoding_options",
    "read_text",
    "run",
]

_LONGEST_TEXT = 64 * 2**20
"""Bytes of a prompt or a grammar."""

EPILOG = f"""\
examples:
  {PROGRAM} generate "<yor> Gbogbo ènìyàn ni a bí"
  {PROGRAM} generate --do-sample --temperature 0.8 --top-p 0.9 --seed 7 "<hau> Su dai"
  {PROGRAM} generate --model FOLDER --num-beams 5 --length-penalty 1.2 --option early_stopping=true "..."
  {PROGRAM} generate --session chat.session "<eng> Everyone has"   and go on later:
  {PROGRAM} generate --session chat.session " and"
  echo "<ibo> A mụrụ" | {PROGRAM} generate -
"""

# Flag, type, metavar and help of the options that people use most; the others are set with --option.
OPTIONS: tuple[tuple[str, Any, str, str], ...] = (
    ("--max-new-tokens", int, "N", "most tokens to generate (default: until an end token, at most 256)"),
    ("--min-new-tokens", int, "N", "fewest tokens to generate"),
    ("--max-time", float, "SECONDS", "end after so many seconds"),
    ("--temperature", float, "T", "with --do-sample: below 1 likely tokens become likelier (default 1)"),
    ("--top-k", int, "K", "with --do-sample: only the K likeliest tokens (default 50, 0: all)"),
    ("--top-p", float, "P", "with --do-sample: only the likeliest tokens that sum to P (default 1: all)"),
    ("--min-p", float, "P", "with --do-sample: only tokens of at least P times the best's probability"),
    ("--seed", int, "N", "makes draws repeat, on any machine (default: others each time)"),
    ("--repetition-penalty", float, "R", "above 1: tokens that occurred become less likely (default 1)"),
    ("--no-repeat-ngram-size", int, "N", "no run of N tokens occurs twice (default 0: allowed)"),
    ("--num-beams", int, "B", "beam search over B hypotheses (default 1: none)"),
    ("--length-penalty", float, "P", "with beams: above 0 favours longer outputs (default 1)"),
    ("--num-return-sequences", int, "N", "outputs: draws, or the best beams (default 1)"),
)


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "generate",
        help="continue a text",
        description="Continues PROMPT. Text goes to standard output as it is produced.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("prompt", metavar="PROMPT", help='text to continue; "-" reads it from standard input')
    add_model_option(parser)
    parser.add_argument("--ids", action="store_true", help="PROMPT and output are token ids, not text")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object at the end instead of text"
    )
    parser.add_argument("--quiet", action="store_true", help="no speed line on standard error")
    add_decoding_options(parser)
    add_loading_options(parser).add_argument(
        "--session",
        type=Path,
        metavar="FILE",
        help="go on with the text in FILE, which PROMPT is added to, if there is one; save text, keys and values there",
    )


def add_decoding_options(parser: Parser) -> None:
    """Add the options that say how tokens are chosen and when texts end."""
    group = parser.add_argument_group("decoding")
    group.add_argument(
        "--do-sample", action="store_true", default=None, help="draw tokens instead of taking the best"
    )
    for flag, kind, metavar, text in OPTIONS:
        group.add_argument(flag, type=kind, metavar=metavar, help=text)
    group.add_argument(
        "--eos-token-id",
        type=_ids_or_none,
        metavar="IDS",
        help="ids that end the text, with commas; none: no id does (default: the model's)",
    )
    group.add_argument(
        "--stop", action="append", metavar="TEXT", help="end before this text; may be given several times"
    )
    add_any_option(group, "any other option of GenerationConfig")
    _add_constraints(parser)


def add_any_option(group: argparse._ActionsContainer, text: str) -> None:
    """Add --option, which takes any option of GenerationConfig; `text` says which ones it is for."""
    group.add_argument(
        "--option",
        action="append",
        type=assignment,
        default=[],
        metavar="NAME=VALUE",
        help=f"{text}, with a JSON value or plain text; several times",
    )


def _add_constraints(parser: Parser) -> None:
    group = parser.add_argument_group("structured output (one of these)")
    group.add_argument(
        "--json-schema",
        metavar="FILE|JSON",
        help="the output is JSON that fits this schema, as text or in a file",
    )
    group.add_argument("--json-object", action="store_true", default=None, help="the output is a JSON object")
    group.add_argument("--regex", metavar="REGEX", help="the whole output matches this regular expression")
    group.add_argument(
        "--choice", action="append", metavar="TEXT", help="the output is one of these; given several times"
    )
    group.add_argument(
        "--grammar",
        type=Path,
        metavar="FILE",
        help="the output is what the Lark grammar in FILE derives from start",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    prompt = _read_ids(arguments.prompt) if arguments.ids else read_text(arguments.prompt)
    options = decoding_options(arguments)
    generator = load(arguments)
    config = generator.generation_config.updated(**options)
    if arguments.session is None:
        PromptNote(generator).check(lambda: [_ids(generator, prompt)])
    source: EdgeGenerator | Session = generator
    if arguments.session is not None:
        source = _open_session(generator, arguments.session, config)
    if arguments.json:
        result = source.generate(prompt, config)
        print(json.dumps(_as_json(result), ensure_ascii=False))
    elif config.num_return_sequences > 1:
        result = source.generate(prompt, config)
        _print_all(result, as_ids=arguments.ids)
    else:
        result = _stream(source, prompt, config, as_ids=arguments.ids)
    if arguments.session is not None:
        cast("Session", source).save(arguments.session)
    if not arguments.quiet:
        print(_speed(result), file=sys.stderr)


def _ids(generator: EdgeGenerator, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        assert generator.tokenizer is not None
        return generator.tokenizer.encode(prompt)
    return prompt


def _open_session(generator: EdgeGenerator, file: Path, config: GenerationConfig) -> Session:
    """The file's session, or a new one if there is no such file."""
    if config.num_return_sequences > 1:
        raise InvalidInputError(
            f"--session goes on with one text, but num_return_sequences is {config.num_return_sequences}. Leave one of "
            "the two out."
        )
    folder = Path(os.path.realpath(file)).parent  # where a symbolic link leads
    if not (folder.is_dir() and os.access(folder, os.W_OK)):  # now, not when the text is there
        raise SessionFileError(f"cannot write {file}: {folder} is no folder that can be written to.")
    return generator.load_session(file) if file.exists() else generator.session()


def _stream(
    generator: EdgeGenerator | Session, prompt: Any, config: Any, *, as_ids: bool
) -> GenerationResult:
    """Print text as it comes, and end the last line, also when Ctrl-C ends the text."""
    shown = ""
    try:
        with generator.stream(prompt, config) as stream:
            for token in stream:
                piece = f"{' ' if token.index else ''}{token.token_id}" if as_ids else token.text
                if piece:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
                    shown = piece
    except BrokenPipeError:
        raise
    except BaseException:
        if shown:
            _end_line(shown)
        raise
    _end_line(shown)
    assert stream.result is not None
    return stream.result


def _end_line(shown: str) -> None:
    if not shown.endswith("\n"):
        print(flush=True)


def _print_all(result: GenerationResult, *, as_ids: bool) -> None:
    texts = None if as_ids else result.texts
    if texts is None:
        texts = [" ".join(map(str, ids)) for ids in result.generated]
    print("\n---\n".join(texts))


def _as_json(result: GenerationResult) -> dict[str, Any]:
    timings = result.timings
    return {
        "texts": result.texts,
        "generated": result.generated,
        "prompt_lengths": result.prompt_lengths,
        "finish_reasons": result.finish_reasons,
        "complete": result.complete,
        "sequences_scores": None if result.sequences_scores is None else result.sequences_scores.tolist(),
        "scores": None if result.scores is None else [row.tolist() for row in result.scores],
        "timings": {
            **dataclasses.asdict(timings),
            "prefill_tokens_per_second": timings.prefill_tokens_per_second,
            "decode_tokens_per_second": timings.decode_tokens_per_second,
        },
    }


def _speed(result: GenerationResult) -> str:
    timings = result.timings
    parts = [
        f"{timings.prefill_tokens} prompt tokens in {timings.prefill_seconds:.2f} s",
        f"first token after {timings.time_to_first_token * 1000:.0f} ms",
        f"{sum(map(len, result.generated))} tokens",
        f"{timings.decode_tokens_per_second:.1f} tokens/s",
        *([f"{timings.reruns} slides took {timings.rerun_seconds:.2f} s"] if timings.reruns else []),
        f"ended by {', '.join(dict.fromkeys(result.finish_reasons))}",
    ]
    return f"[{'; '.join(parts)}]"


# --- arguments ---


def decoding_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of GenerationConfig. Only what was given: the rest is the model folder's."""
    names = [
        *("do_sample", "eos_token_id", "json_object", "regex"),
        *(flag[2:].replace("-", "_") for flag, *_ in OPTIONS),
    ]
    options = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if options.get("eos_token_id") == "none":
        options["eos_token_id"] = None
    if arguments.stop:
        options["stop_strings"] = [as_utf8(text) for text in arguments.stop]
    if arguments.choice:
        options["choices"] = [as_utf8(text) for text in arguments.choice]
    if arguments.json_schema is not None:
        is_text = arguments.json_schema.lstrip().startswith("{")
        schema = arguments.json_schema
        options["json_schema"] = as_utf8(schema) if is_text else _read(Path(schema))
    if arguments.grammar is not None:
        options["grammar"] = _read(arguments.grammar)
    for name, value in arguments.option:
        if name in options:
            raise InvalidInputError(f"{name} is given twice. Leave out one of the two.")
        options[name] = value
    return options


def _read(file: Path) -> str:
    try:
        return read_file_or_pipe(file, at_most=_LONGEST_TEXT).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        told = (
            error.strerror if isinstance(error, OSError) and error.strerror else error
        )  # without the name again
        raise InvalidInputError(
            f"{shortened(str(file), LONGEST_MESSAGE)} cannot be read: {told}. Give a file of UTF-8 text."
        ) from error


def assignment(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, whose value is JSON, a word of Python's, or plain text."""
    name, equals, value = as_utf8(text).partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not NAME=VALUE")
    if value.lower() in ("true", "false", "none"):  # as Python writes them
        return name, {"true": True, "false": False, "none": None}[value.lower()]
    try:
        return name, parse_json(value)
    except ValueError:
        return name, value


def _ids_or_none(text: str) -> list[int] | str:
    if text.lower() == "none":
        return "none"
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is neither ids with commas, like 2,7, nor none"
        ) from None


def read_text(argument: str) -> str:
    """Return PROMPT, or standard input without the line break that ends it."""
    if argument != "-":
        return as_utf8(argument)
    try:
        data = read_to_end(sys.stdin.buffer, "standard input", at_most=_LONGEST_TEXT) if sys.stdin else b""
    except OSError as error:
        raise InvalidInputError(f"cannot read standard input: {error.strerror or error}.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"standard input is not UTF-8: byte {error.start} is {data[error.start]:#04x}. Convert it to UTF-8."
        ) from None
    return text.removesuffix("\n").removesuffix("\r")


def as_utf8(argument: str) -> str:
    """A text among the arguments. In an ASCII or Latin-1 locale Python took its bytes for other characters."""
    has_bytes = any("\udc80" <= char <= "\udcff" for char in argument)
    if argument.isascii() or not (has_bytes or sys.getfilesystemencoding() != "utf-8"):
        return argument
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        if not has_bytes:  # typed in a Latin-1 terminal
            return argument
        raise InvalidInputError(
            f"the text {argument!a} is not UTF-8. Convert it, or give it in a UTF-8 terminal."
        ) from None


def _read_ids(argument: str) -> list[int]:
    text = read_text(argument)
    try:
        return [int(word) for word in text.strip("[] \n").replace(",", " ").split()]
    except ValueError:
        raise InvalidInputError(
            f"with --ids the prompt is a list of ids, like '5 17 9', not {shown(text)}."
        ) from None
