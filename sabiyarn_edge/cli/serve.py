"""sabiyarn-edge serve: answers HTTP requests, as OpenAI's clients send them."""

from __future__ import annotations

import argparse
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError, shortened, shown
from ..system.installation import install_command
from ..system.regular_file import read_file_or_pipe
from .loading import DEFAULT_MODEL, add_loading_options, loading_arguments
from .parser import LONGEST_MESSAGE, Parser
from .terminal import PROGRAM, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..server.service import ServedModel, Settings

__all__ = ["add_to", "run"]

ENVIRONMENT_PREFIX = "SABIYARN_EDGE_"

_ORIGIN = re.compile(r"\*|null|https?://[^/?#@\sA-Z]+|(?!https?:)[a-z][a-z0-9+.-]*://[^/?#@\s]+")
"""What browsers send as Origin: a scheme, a host in small letters, and its port if it is not the scheme's."""

EPILOG = f"""\
Every option can be given in the environment too: --max-queue as {ENVIRONMENT_PREFIX}MAX_QUEUE, and so on; several
values with commas. The command line wins.

examples:
  {PROGRAM} serve
  {PROGRAM} serve --model yor=models/yoruba --model hau=models/hausa --parallel 8 --memory-limit 700
  {PROGRAM} serve --host 0.0.0.0 --api-key-file /etc/sabiyarn-edge.keys
  {PROGRAM} serve --host /run/sabiyarn-edge.sock
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "serve",
        help="answer HTTP requests of OpenAI's clients",
        description="Answers HTTP requests, as OpenAI's clients send them, until it is told to end.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    _add(
        parser,
        "--model",
        metavar="[NAME=]FOLDER",
        action="append",
        help=f"model folder, and what requests call it (default: the folder's name); several times ({DEFAULT_MODEL})",
    )
    _add_listening(parser)
    _add_limits(parser)
    _add_loading(parser)


def _add_listening(parser: Parser) -> None:
    group = parser.add_argument_group("listening")
    _add(group, "--host", default="127.0.0.1", metavar="ADDRESS", help="address, or path of a Unix socket")
    _add(group, "--port", type=int, default=8080, metavar="N", help="port; 0: any that is free")
    _add(
        group,
        "--api-key",
        action="append",
        metavar="KEY",
        help="key that clients must send; several times. Others can see it in the list of processes",
    )
    _add(group, "--api-key-file", metavar="FILE", help="file with keys, one in each line")
    _add(group, "--allow-anonymous", action="store_true", help="let other machines connect without a key")
    _add(
        group,
        "--cors-origins",
        metavar="ORIGINS",
        help='web pages that may ask, as https://example.org, with commas; "*": all (none)',
    )
    _add(
        group,
        "--allowed-hosts",
        metavar="NAMES",
        help="names, with commas, by which clients reach a server without keys, beside its address and hostname (none)",
    )
    _add(group, "--log-prompts", action="store_true", help="write prompts into the log")


def _add_limits(parser: Parser) -> None:
    group = parser.add_argument_group("limits")
    _add(group, "--parallel", type=int, default=16, metavar="N", help="rows of a model that run at once")
    _add(group, "--max-queue", type=int, default=64, metavar="N", help="rows that wait for these")
    _add(
        group,
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="time for a request, waiting included",
    )
    _add(
        group,
        "--drain-timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="time for requests at the end",
    )
    _add(
        group, "--max-tokens-limit", type=int, metavar="N", help="most new tokens of a request (all that fit)"
    )


def _add_loading(parser: Parser) -> None:
    group = add_loading_options(
        parser,
        ("num_threads", "low_power", "resident", "kv_window"),
        title="loading, of each model",
        add=_add,
    )
    _add(
        group,
        "--max-length",
        type=int,
        metavar="N",
        help="positions of a row, prompt and output (the model's)",
    )
    _add(
        group,
        "--prefix-cache",
        type=int,
        default=32,
        metavar="MIB",
        help="for what earlier prompts began with, as system prompts",
    )
    _add(group, "--memory-limit", type=float, metavar="MIB", help="of all models together (none)")


def _add(group: Any, flag: str, **options: Any) -> None:
    """Add an option whose default the environment may give."""
    given = os.environ.get(_variable(flag))
    default = options.pop("default", None)
    if default is not None:
        options["help"] += f" ({default:g})" if isinstance(default, float) else f" ({default})"
    if options.get("action") == "store_true":
        default = given or False  # checked by run(): other commands must not fail for it
    elif given and options.get("action") == "append":
        default = given.split(",")
    elif given:
        default = given
    if options.get("action") == "append":
        options["action"] = _Replacing
    group.add_argument(flag, default=default, **options)


def _variable(flag: str) -> str:
    return ENVIRONMENT_PREFIX + flag.strip("-").replace("-", "_").upper()


def _read_flags(arguments: argparse.Namespace) -> None:
    """Turn switches that the environment gave, as texts, into True or False."""
    for flag in ("--allow-anonymous", "--log-prompts", "--low-power", "--resident"):
        name = flag.strip("-").replace("-", "_")
        given = getattr(arguments, name)
        if isinstance(given, str):
            if given not in ("0", "1"):
                raise InvalidInputError(f"{_variable(flag)} is {shown(given)}; it must be 1 or 0.")
            setattr(arguments, name, given == "1")


class _Replacing(argparse.Action):
    """Appends values; the first one takes the place of the default, which the environment may have given."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        given = getattr(namespace, self.dest)
        fresh = given is None or given is self.default
        setattr(namespace, self.dest, [values] if fresh else [*given, values])


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    _read_flags(arguments)
    _check(arguments)
    folders = _folders(arguments.model or [DEFAULT_MODEL])
    keys = _keys(arguments)
    origins = _origins(arguments.cors_origins or "")
    try:
        from ..server.listening import is_local, listening, shown_address
        from ..server.process import run_server
        from ..server.service import Service, Settings
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"the server needs {error.name}, which is not installed. Run: {install_command('serve')}"
        ) from error
    if not keys and not arguments.allow_anonymous and not is_local(arguments.host):
        raise InvalidInputError(
            f"--host is {arguments.host}, which other machines can reach, and there is no key. Give --api-key-file or "
            "--api-key, or --allow-anonymous to let everybody in."
        )
    settings = Settings(
        parallel=arguments.parallel,
        max_queue=arguments.max_queue,
        timeout=arguments.timeout,
        max_tokens_limit=arguments.max_tokens_limit,
        api_keys=keys,
        cors_origins=origins,
        allowed_hosts=tuple(filter(None, map(str.strip, (arguments.allowed_hosts or "").split(",")))),
        log_prompts=arguments.log_prompts,
    )
    service = Service(list(folders), lambda: _load(folders, arguments, settings), settings)
    with listening(arguments.host, arguments.port) as listener:
        say(f"listening on {shown_address(listener)}")
        run_server(service, listener, drain_seconds=arguments.drain_timeout, say=say)


def _check(arguments: argparse.Namespace) -> None:
    from ..options.checks import integer, memory_mib, number

    integer(at_least=1, at_most=1024)("--parallel", arguments.parallel)
    integer()("--max-queue", arguments.max_queue)
    integer(at_most=65535)("--port", arguments.port)
    number(above=0)("--timeout", arguments.timeout)
    number(at_least=0)("--drain-timeout", arguments.drain_timeout)
    integer()("--prefix-cache", arguments.prefix_cache)
    if arguments.memory_limit is not None:
        memory_mib("--memory-limit", arguments.memory_limit)
    if arguments.max_tokens_limit is not None:
        integer(at_least=1)("--max-tokens-limit", arguments.max_tokens_limit)


def _folders(given: list[str]) -> dict[str, Path]:
    """Folder of each model by its name, checked to be there before the server listens."""
    from ..generator import find_model

    found: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        folder = find_model(path if equals else text)
        name = name if equals else folder.absolute().name
        if not name or name in found:
            raise InvalidInputError(
                f"--model {text}: {f'the name {name} is given twice' if name else 'the name is empty'}. "
                "Give each model its own, as --model NAME=FOLDER."
            )
        found[name] = folder
    return found


def _keys(arguments: argparse.Namespace) -> tuple[str, ...]:
    keys = list(arguments.api_key or [])
    if arguments.api_key_file is not None:
        try:
            lines = read_file_or_pipe(arguments.api_key_file, at_most=2**20).decode().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            told = error.strerror if isinstance(error, OSError) and error.strerror else error
            file = shortened(str(arguments.api_key_file), LONGEST_MESSAGE)
            raise InvalidInputError(f"cannot read the keys in {file}: {told}.") from error
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise InvalidInputError(f"there is no key in {arguments.api_key_file}. Write one into each line.")
        keys += found
    if any(not key or not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise InvalidInputError("an API key is empty, or has spaces or letters beyond ASCII. Give another.")
    return tuple(keys)


def _origins(given: str) -> tuple[str, ...]:
    origins = tuple(filter(None, map(str.strip, given.split(","))))
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise InvalidInputError(
                f"--cors-origins has {shown(origin)}, which no browser sends. Give a scheme and a host in small "
                "letters, with the port if there is one, and nothing behind it: https://app.example."
            )
    return origins


def _load(
    folders: Mapping[str, Path], arguments: argparse.Namespace, settings: Settings
) -> dict[str, ServedModel]:
    from ..generator import EdgeGenerator
    from ..server.service import ServedModel

    loaded = {}
    for name, limit in _limits(folders, arguments).items():
        generator = EdgeGenerator.from_pretrained(
            folders[name],
            max_length=arguments.max_length,
            max_batch_size=arguments.parallel,
            prefix_cache_mb=arguments.prefix_cache,
            memory_limit_mb=limit,
            **loading_arguments(arguments),
        )
        if generator.tokenizer is None:
            raise InvalidInputError(
                f"{folders[name]} has no tokenizer.json, and requests are texts. Put the model's into the folder."
            )
        loaded[name] = ServedModel(name, generator, settings)
    return loaded


def _limits(folders: Mapping[str, Path], arguments: argparse.Namespace) -> dict[str, float | None]:
    """Divide the memory limit among the models, in proportion to what all rows of each would take."""
    limit = arguments.memory_limit
    if limit is None:
        return dict.fromkeys(folders, None)
    from ..generator import EdgeGenerator

    peaks = {
        name: EdgeGenerator.plan(
            folder,
            max_length=arguments.max_length,
            batch=arguments.parallel,
            kv_window=arguments.kv_window,
            prefix_cache_mb=arguments.prefix_cache,
            resident=arguments.resident,
        ).peak_mib
        for name, folder in folders.items()
    }
    if sum(peaks.values()) > limit:
        each = ", ".join(f"{name} {peak:.1f}" for name, peak in peaks.items())
        raise InvalidInputError(
            f"--memory-limit is {limit:g}, but --parallel {arguments.parallel} takes {sum(peaks.values()):.1f} MiB "
            f"({each}). Allow {math.ceil(sum(peaks.values()))}, or give a smaller --parallel, --max-length, "
            "--kv-window or --prefix-cache."
        )
    return {name: limit * peak / sum(peaks.values()) for name, peak in peaks.items()}
