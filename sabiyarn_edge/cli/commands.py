"""All commands, and what becomes of their errors.

Text and results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence

from ..errors import InvalidInputError, SabiYarnError, shortened
from ..system.interrupts import EXIT_INTERRUPTED
from . import (
    batch,
    bench,
    chat,
    doctor,
    embed,
    evaluate,
    export,
    generate,
    info,
    install,
    plan,
    score,
    serve,
    tasks,
)
from .parser import LONGEST_MESSAGE, Parser, UsageError
from .terminal import PROGRAM, discard_output, one_line, output_named, prepare_streams, say, warnings_as_lines

__all__ = ["COMMANDS", "run"]

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2

EPILOG = """\
exit codes:
  0    done (also when the reader of the output went away)
  1    the model, the checkpoint, the export or the job failed; a line of a batch gave an error; standard output cannot
       be written; or the doctor found a problem
  2    wrong usage or input, or standard output is closed
  130  interrupted (Ctrl-C); while modules are loaded, and after the end, by the signal itself
"""

COMMANDS = (
    *(generate, chat, tasks, batch, score, embed, evaluate),
    *(export, install, info, plan, serve, bench, doctor),
)


def run(argv: Sequence[str]) -> int:
    """Run a command.

    Args:
        argv: arguments after the program's name.

    Returns:
        The exit code (see `EPILOG`).
    """
    prepare_streams()
    in_flags: Callable[[str], str] = str
    try:
        with warnings_as_lines(), output_named():
            arguments = _parser(argv).parse_all(argv)
            in_flags = functools.partial(arguments.parser.in_flags, arguments=arguments)
            code: int | None = arguments.run(arguments)
            sys.stdout.flush()
        return code or EXIT_OK
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `sabiyarn-edge ... | head`: the reader has what it wanted
        discard_output()
        return EXIT_OK
    except (InvalidInputError, UsageError) as error:
        say(f"error: {in_flags(one_line(error))}")
        return EXIT_BAD_INPUT
    except SabiYarnError as error:
        say(f"error: {in_flags(one_line(error))}")
    except MemoryError:
        say("error: there is not enough memory. Give a shorter prompt, fewer rows or a smaller --kv-window.")
    except OSError as error:
        say(f"error: {shortened(one_line(error), LONGEST_MESSAGE)}")
        discard_output()
    return EXIT_FAILED


def _parser(argv: Sequence[str] = ()) -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Runs SabiYarn and other GPTJX language models on small devices.",
        epilog=EPILOG,
    )
    parser.add_version()
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    tasks.add_task_of_folder(commands, argv)
    return parser
