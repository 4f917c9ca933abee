"""Checks that the libraries are installed and run here, in a child process: a crash is reported, not suffered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..system import telemetry
from ..system.installation import install_command
from .finding import Finding
from .system import System

__all__ = ["MIN_ONNXRUNTIME", "examine_software", "examine_telemetry"]

MIN_ONNXRUNTIME = (1, 30)
"""The minimum of pyproject.toml; tests/doctor compares them."""

TESTED_ONNXRUNTIME = "1.32.0"
"""The version whose wheels ran under the emulated boards."""

ISA_VARIABLE = "SABIYARN_EDGE_ISA"
"""Of engine.operators, which must not be imported here."""

EXPECTED_START = "<yor> Gbogbo ènìyàn ni a bí ní òmìnira"
"""Text that nano knows by heart: the beginning of the Universal Declaration of Human Rights in Yoruba."""

_TRY = """
import json, sys
def step(name, run):
    print(json.dumps({"begun": name}), flush=True)
    try:
        said = {"done": run()}
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}", "missing": getattr(error, "name", None)}
    print(json.dumps(said), flush=True)
def numpy():
    import numpy
    numpy.linalg.inv(numpy.eye(64, dtype=numpy.float32))
    return numpy.__version__
def tokenizers():
    import tokenizers
    return tokenizers.__version__
def core():
    import sabiyarn_edge
    from sabiyarn_edge.engine import _decode
    from sabiyarn_edge import _core
    return sabiyarn_edge.__version__
def sets():
    from sabiyarn_edge import _core
    return ", ".join(_core.linear_kernels())
def runtime():
    import onnxruntime
    return onnxruntime.__version__
def generate():
    from sabiyarn_edge import EdgeGenerator
    prompt = "<yor> Gbogbo ènìyàn ni a bí"
    generator = EdgeGenerator.from_pretrained("nano", num_threads=1)
    return prompt + generator.generate(prompt, max_new_tokens=8).text
for name, run in [("numpy", numpy), ("tokenizers", tokenizers), ("core", core), ("sets", sets),
                  ("onnxruntime", runtime), ("generation", generate)]:
    step(name, run)
"""

_STEPS = ("numpy", "tokenizers", "core", "sets", "onnxruntime", "generation")


@dataclass(frozen=True)
class _Outcome:
    """The result of one step: its answer, or how it failed."""

    done: str | None = None
    error: str = ""
    missing: str | None = None
    died: str = ""


def examine_software(system: System) -> list[Finding]:
    """Try numpy, tokenizers, the compiled core, onnxruntime, and all of them together on the bundled model."""
    if getattr(sys, "frozen", False):  # its executable is the program, not a Python that could try them
        return [Finding("libraries", "ok", "frozen with this program; not tried one by one")]
    outcomes = _try(system)
    sets = (outcomes.pop("sets", _Outcome()).done or "").split(", ")
    findings = [_judge(name, outcomes[name]) for name in _STEPS[:-1] if name in outcomes]
    if all(finding.status != "problem" for finding in findings):
        generation = outcomes.get("generation", _Outcome(error="it was not reached"))
        findings.append(_judge_generation(generation, sets, _set_that_runs(system, generation, sets)))
    return findings


def examine_telemetry() -> Finding:
    """Check that onnxruntime does not report to its maker from here, and say if other programs of this user do."""
    state, file = telemetry.state(), telemetry.device_id_file()
    facts = {"state": state, "device_id_file": str(file) if file else None}
    if state == "on":
        return Finding(
            "telemetry",
            "warning",
            f"on: {telemetry.VARIABLE} is {os.environ[telemetry.VARIABLE]!r}, so onnxruntime reports to its maker",
            f"Unset {telemetry.VARIABLE}, or set it to 1.",
            facts,
        )
    if file is not None:  # not this package's doing, nor its reader's to mend
        text = f"off here; another program of this user has let onnxruntime report, as its device id {file} tells"
        return Finding("telemetry", "ok", text, facts=facts)
    return Finding("telemetry", "ok", "off", facts=facts)


def _set_that_runs(system: System, generation: _Outcome, sets: Sequence[str]) -> str | None:
    """The best lower instruction set, where one that the CPU says it has kills the process; None if none helps."""
    if "SIGILL" in generation.died:
        for name in sets[1:]:
            outcomes = {step: _Outcome() for step in _STEPS[:-1]}
            _run(system, outcomes, {ISA_VARIABLE: name})
            if (outcomes.get("generation", _Outcome()).done or "").startswith(EXPECTED_START):
                return name
    return None


def _try(system: System) -> dict[str, _Outcome]:
    """Run the steps in a child process. Those behind a step that killed it are tried in another."""
    outcomes: dict[str, _Outcome] = {}
    for _ in _STEPS:
        begun = _run(system, outcomes)
        if begun is None:
            break
        outcomes[begun] = outcomes.get(begun, _Outcome())
    return outcomes


def _run(
    system: System, outcomes: dict[str, _Outcome], variables: Mapping[str, str] | None = None
) -> str | None:
    """Run the steps without an outcome in a child process. Returns the step that killed it, if one did."""
    code = _TRY.replace("    step(name, run)", f"    if name not in {sorted(outcomes)!r}: step(name, run)")
    # Modules are looked for where this process finds them, whatever the current folder holds.
    code = f"import sys; sys.path[:] = {sys.path!r}\n{system.prelude}\n{code}"
    # A locale of ASCII takes no other arguments; what is not ASCII stands in string literals.
    code = code.encode("ascii", "backslashreplace").decode("ascii")
    environment = {**os.environ, **(variables or {}), "PYTHONIOENCODING": "utf-8"}
    try:
        child = subprocess.run(
            [system.python, "-c", code],
            capture_output=True,
            timeout=system.seconds,
            env=environment,
        )
        output, ended = child.stdout, _how_it_ended(child.returncode)
    except subprocess.TimeoutExpired as error:
        output, ended = error.stdout or b"", f"did not end in {system.seconds:.0f} s"
    except OSError as error:
        output, ended = b"", f"cannot be started ({system.python}: {error.strerror})"
    begun = None
    for line in output.decode("utf-8", errors="replace").splitlines():
        said = _parsed(line)
        if "begun" in said:
            begun = str(said["begun"])
        elif begun is not None and ("done" in said or "error" in said):
            outcomes[begun] = _Outcome(said.get("done"), said.get("error", ""), said.get("missing"))
            begun = None
    if begun is not None:
        outcomes[begun] = _Outcome(died=ended)
    elif len(outcomes) < len(_STEPS):  # nothing runs at all
        for name in _STEPS:
            outcomes.setdefault(name, _Outcome(died=f"Python {ended}"))
    return begun


def _parsed(line: str) -> Mapping[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:  # something printed on import
        return {}
    return said if isinstance(said, dict) else {}


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _judge(name: str, outcome: _Outcome) -> Finding:
    facts = {"version": outcome.done, "error": outcome.error or outcome.died or None}
    what = {"core": "compiled core"}.get(name, name)
    if outcome.died:
        return Finding(
            what, "problem", f"{_label(name)} {outcome.died}", _remedy_of_death(name, outcome), facts
        )
    if outcome.done is None:
        return Finding(
            what,
            "problem",
            f"{_label(name)} cannot be imported ({outcome.error})",
            _remedy(name, outcome),
            facts,
        )
    if name == "onnxruntime" and _numbers(outcome.done) < MIN_ONNXRUNTIME:
        least = ".".join(map(str, MIN_ONNXRUNTIME))
        return Finding(
            what,
            "problem",
            f"{outcome.done}; at least {least} is needed",
            f"pip install 'onnxruntime>={least}'",
            facts,
        )
    return Finding(what, "ok", outcome.done, facts=facts)


def _judge_generation(outcome: _Outcome, sets: Sequence[str], runs: str | None) -> Finding:
    facts = {
        "text": outcome.done,
        "error": outcome.error or outcome.died or None,
        "instruction_sets": [*sets],
    }
    if outcome.died:
        remedy = _remedy_of_death("onnxruntime", outcome)
        if runs is not None:
            remedy = f"The system forbids {sets[0]}, which this CPU says it has. Set {ISA_VARIABLE}={runs}."
        return Finding(
            "generation", "problem", f"generating from the bundled model {outcome.died}", remedy, facts
        )
    if outcome.done is None:
        remedy = f"Install the package again: {install_command('', '--force-reinstall')}"
        if ISA_VARIABLE in outcome.error:
            remedy = f"unset {ISA_VARIABLE}"
        return Finding(
            "generation", "problem", f"the bundled model does not run ({outcome.error})", remedy, facts
        )
    if not outcome.done.startswith(EXPECTED_START):
        return Finding(
            "generation",
            "problem",
            f"the bundled model computes wrong: {outcome.done!r}, not {EXPECTED_START!r}",
            f"Install onnxruntime {TESTED_ONNXRUNTIME}; if that does not help, report this with `--json`.",
            facts,
        )
    text = f"the bundled model gives the text that it has learnt, with instruction set {sets[0]}"
    return Finding("generation", "ok", text, facts=facts)


def _label(name: str) -> str:
    return {"core": "the compiled core"}.get(name, name)


def _remedy(name: str, outcome: _Outcome) -> str:
    if name == "core":
        command = install_command("", "--force-reinstall", "--no-deps")
        return f"Install the package again for this Python: {command}"
    if outcome.missing == name:
        return f"pip install {name}"
    return f"pip install --force-reinstall {name}"


def _remedy_of_death(name: str, outcome: _Outcome) -> str:
    if "SIGILL" in outcome.died:
        lacks = "This CPU lacks an instruction that it was compiled for."
        if name == "core":
            return f"{lacks} Compile it here, from a checkout: pip install --force-reinstall --no-deps ."
        version = f"=={TESTED_ONNXRUNTIME}" if name == "onnxruntime" else ""
        another = "the version that is tested on such CPUs" if version else "another version"
        return f"{lacks} Try {another}: pip install {name}{version}"
    if "SIGKILL" in outcome.died:
        return "The system ended it, most likely for want of memory: end other programs, or add swap."
    if name == "core":
        return f"Install it again: {install_command('', '--force-reinstall')}"
    return f"Install it again: pip install --force-reinstall {name}"


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts)
