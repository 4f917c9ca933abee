"""sabiyarn-edge chat: talks with a model, turn by turn."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError, SabiYarnError
from .generate import add_any_option, as_utf8
from .loading import DEFAULT_MODEL, add_loading_options, load
from .parser import Parser
from .terminal import PROGRAM, one_line, say
from .text_lines import decoded_lines, opened

if TYPE_CHECKING:
    from ..chat.session import ChatSession
    from ..generator import EdgeGenerator

__all__ = ["Repl", "add_to", "run"]

COMMANDS = """\
/help          this list
/system TEXT   replace the system message; without TEXT: none
/reset         begin anew, with the same system message
/tokens        how many tokens the chat has, and how many there may be
/save FILE     write the chat, with its keys and values
/load FILE     go on with a chat that was saved
/quit          end (or Ctrl-D)
Ctrl-C stops an answer. A line that begins with // is a message that begins with /.
"""

EPILOG = f"""\
lines that begin with / are commands:
{"".join(f"  {line}" for line in COMMANDS.splitlines(keepends=True))}
examples:
  {PROGRAM} chat FOLDER --system "Jẹ́ kúkúrú."
  echo "Báwo ni?" | {PROGRAM} chat FOLDER
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "chat",
        help="talk with a model",
        description="Answers messages, one in each line, by the model's chat template. Answers go to standard output "
        "as they are produced; reasoning, notes and errors to standard error.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", default=DEFAULT_MODEL, help="model folder, or nano (default)"
    )
    parser.add_argument("--system", metavar="TEXT", help="system message")
    parser.add_argument(
        "--load", type=Path, metavar="FILE", help="go on with a chat that /save wrote to FILE"
    )
    group = parser.add_argument_group("decoding")
    group.add_argument("--max-new-tokens", type=int, metavar="N", help="most tokens of an answer")
    group.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="draw tokens, with this temperature (default: the best)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="makes draws repeat, on any machine")
    add_any_option(group, "any other option of GenerationConfig")
    add_loading_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.system is not None and arguments.load is not None:
        raise InvalidInputError("--load goes on with a chat that has its system message: leave out --system.")
    options = _options(arguments)
    with load(arguments) as generator:
        generator.generation_config.updated(**options)  # refuse a bad option now, not at the first message
        repl = Repl(generator, options, is_terminal=sys.stdin is not None and sys.stdin.isatty())
        if arguments.load is not None:
            repl.load(str(arguments.load))
        elif arguments.system is not None:
            repl.begin(as_utf8(arguments.system))
        else:
            repl.begin("")
        repl.run()


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("max_new_tokens", "temperature", "seed")
    options = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if "temperature" in options:
        options["do_sample"] = True
    for name, value in arguments.option:
        if name in options:
            raise InvalidInputError(f"{name} is given twice. Leave out one of the two.")
        options[name] = value
    return options


class Repl:
    """Reads lines, and answers or obeys them.

    Args:
        options: of each answer.
        is_terminal: whether a person types them: then an error ends no program, and lines have a prompt.
    """

    def __init__(self, generator: EdgeGenerator, options: dict[str, Any], *, is_terminal: bool) -> None:
        self._generator, self._options, self._is_terminal = generator, options, is_terminal
        self._session: ChatSession | None = None
        self._commands: dict[str, Callable[[str], object]] = {
            "/help": lambda text: sys.stderr.write(COMMANDS),
            "/system": self._set_system,
            "/reset": lambda text: self.begin(self._system),
            "/tokens": lambda text: say(self._tokens()),
            "/save": self._save,
            "/load": self.load,
        }

    @property
    def session(self) -> ChatSession:
        """The chat at hand."""
        assert self._session is not None
        return self._session

    @property
    def _system(self) -> str:
        first = next(iter(self.session.messages), None)
        return str(first["content"]) if first is not None and first["role"] == "system" else ""

    def begin(self, system: str) -> None:
        """Begin a chat.

        Args:
            system: its system message; "": none.
        """
        messages = [{"role": "system", "content": system}] if system else []
        self._session = self._generator.chat_session(messages)

    def load(self, file: str) -> None:
        """Go on with a chat from a file."""
        self._session = self._generator.load_chat(Path(_file(file)))
        say(f"{len(self._session.messages)} messages loaded; {self._tokens()}")

    def run(self) -> None:
        """Read lines to their end."""
        if self._is_terminal:
            self._converse()
            return
        for line in decoded_lines(opened("-"), "-"):
            if not self._take(line):
                return

    def _converse(self) -> None:
        """Take what a person types, with editing and a history where Python has them. No Ctrl-C ends it."""
        with contextlib.suppress(ModuleNotFoundError):
            import readline  # noqa: F401 - input() uses it
        say("/help lists commands; Ctrl-D ends.")
        while True:
            line = None
            try:
                line = as_utf8(input("> "))
                if not self._take(line):
                    return
            except EOFError:
                print()
                return
            except SabiYarnError as error:
                say(f"error: {one_line(error)}")
            except KeyboardInterrupt:
                with contextlib.suppress(KeyboardInterrupt):  # who hits it twice means the same
                    if line is None:
                        print()  # drops what was typed so far
                    else:
                        say("stopped")

    def _take(self, line: str) -> bool:
        """Do what a line asks for; returns whether to go on."""
        line = line.strip()
        if line == "/quit":
            return False
        if line:
            self._obey(line)
        return True

    def _obey(self, line: str) -> None:
        name, _, text = line.partition(" ")
        if not name.startswith("/") or name.startswith("//"):
            self._answer(line.removeprefix("/") if line.startswith("//") else line)
        elif name in self._commands:
            self._commands[name](text.strip())
        else:
            raise InvalidInputError(
                f"there is no command {name}; the commands are {', '.join(self._commands)} and /quit. A message that "
                "begins with / is typed with //."
            )

    def _answer(self, message: str) -> None:
        before = self.session.left_out_messages
        stream, stopped = None, False
        try:
            with self.session.stream(message, **self._options) as stream:
                for delta in stream:
                    sys.stderr.write(delta.reasoning + delta.task_plan)
                    sys.stderr.flush()
                    sys.stdout.write(delta.content)
                    sys.stdout.flush()
        except KeyboardInterrupt:
            stopped = True
        print(flush=True)
        if stopped:
            say("stopped")
        if stream is None or stream.result is None:
            return
        if stream.result.finish_reason in ("length", "time"):
            say("the answer was cut: it reached its most tokens or seconds")
        if stream.left_out_messages > before:
            say(f"the oldest {stream.left_out_messages} messages no longer fit and are left out")

    def _set_system(self, text: str) -> None:
        messages = self.session.messages
        rest = messages[1:] if self._system else messages
        system = [{"role": "system", "content": text}] if text else []
        self._session = self._generator.chat_session([*system, *rest])

    def _save(self, file: str) -> None:
        self.session.save(_file(file))
        say(f"{len(self.session.messages)} messages saved")

    def _tokens(self) -> str:
        left_out = self.session.left_out_messages
        note = f"; {left_out} messages are left out" if left_out else ""
        return f"{len(self.session.tokens)} of {self._generator.max_length} tokens{note}"


def _file(name: str) -> str:
    if not name:
        raise InvalidInputError("a file is missing: /save FILE, /load FILE.")
    return as_utf8(name)
