"""sabiyarn-edge doctor: finds out if this machine can run a model, and what to do if not."""

from __future__ import annotations

import argparse
import json

from .parser import Parser
from .terminal import PROGRAM, printable

__all__ = ["add_to", "run"]

EPILOG = f"""\
Each line is ok, a warning (it runs, but worse than it could) or a problem (it does not run), with the remedy below it.
Exit code 1 if there is a problem.

examples:
  {PROGRAM} doctor
  {PROGRAM} doctor sabiyarn-125m --json
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="find out if this machine can run a model, and what to do if not",
        description="Looks at board, memory, libraries and telemetry, and at MODEL if one is given.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="model folder, or the name of a bundled model"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    from ..doctor import System, examine

    findings = []
    for finding in examine(System(), arguments.model):
        findings.append(finding)
        if not arguments.json:
            print(f"{finding.status:<8} {finding.name}: {printable(finding.text)}", flush=True)
            if finding.remedy:
                print(f"{'':<8} -> {printable(finding.remedy)}", flush=True)
    sound = all(finding.status != "problem" for finding in findings)
    if arguments.json:
        report = {"sound": sound, "findings": [finding.to_dict() for finding in findings]}
        print(json.dumps(report, ensure_ascii=False))
    return 0 if sound else 1
