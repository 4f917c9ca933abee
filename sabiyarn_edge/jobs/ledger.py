"""Ledger: what a job is and how far it has come, in a file beside its output.

It is a SQLite database, so a checkpoint is a transaction: it holds after `kill -9` and power cuts. The ids of the lines
that were done are in it too, so that a second line with the same id is found without holding all ids in memory.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, JobError

__all__ = ["LEDGER_SUFFIX", "Ledger", "Progress", "differences"]

LEDGER_SUFFIX = ".job"
"""Behind the output's name."""
FORMAT_VERSION = 1
_CACHE_KIB = 2048


@dataclass
class Progress:
    """How far a job has come: all that is stored at a checkpoint."""

    lines: int = 0
    """Lines of the input that are done, empty ones and those of other shards included."""
    input_bytes: int = 0
    input_digest: str = ""
    """SHA-256 of these bytes."""
    texts: int = 0
    """Lines that are not empty, those of other shards included."""
    records: int = 0
    """Records that were written."""
    errors: int = 0
    """Of them those with an error."""
    output_bytes: int = 0
    output_crc: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    """That the job took, over all its runs."""
    complete: bool = False
    """Whether the end of the input was reached."""


class Ledger:
    """The ledger of one output; held by one process at a time.

    Args:
        output: whose ledger it is; "-": kept nowhere.

    Raises:
        JobError: another process holds it, it is no ledger, or it cannot be written.
    """

    def __init__(self, output: str | Path) -> None:
        self.path = self.path_of(output)
        name = "" if str(output) == "-" else str(self.path)  # "": a temporary database on the disk
        try:
            self._database = sqlite3.connect(name, timeout=0, isolation_level=None)
            self._run("PRAGMA locking_mode = EXCLUSIVE")
            self._run(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._run("BEGIN EXCLUSIVE")
            self._run("CREATE TABLE IF NOT EXISTS job (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
            self._run("CREATE TABLE IF NOT EXISTS ids (id TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        except sqlite3.Error as error:
            raise self._fault(error) from error

    @staticmethod
    def path_of(output: str | Path) -> Path:
        """Where the ledger of an output is."""
        return Path(f"{output}{LEDGER_SUFFIX}")

    def clear(self) -> None:
        """Forget the job."""
        self._run("DELETE FROM job")
        self._run("DELETE FROM ids")

    def settings(self) -> dict[str, Any] | None:
        """What the job is; None if it has not begun.

        Raises:
            JobError: a newer version wrote it.
        """
        stored = self._get("settings")
        version = self._get("format_version")
        if stored is not None and version != FORMAT_VERSION:
            raise JobError(
                f"{self.path} has format version {version}, but this version of sabiyarn_edge reads "
                f"{FORMAT_VERSION}. Update it."
            )
        return stored  # type: ignore[no-any-return]

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin a new job; what an earlier one left is forgotten."""
        self.clear()
        self._put("format_version", FORMAT_VERSION)
        self._put("settings", dict(settings))
        self.checkpoint(Progress())

    def progress(self) -> Progress:
        """How far the job had come at its last checkpoint."""
        return Progress(**self._get("progress"))

    def checkpoint(self, progress: Progress) -> None:
        """Store how far the job has come, and the ids that were added, in one step.

        Raises:
            OSError: there is no room for it.
        """
        self._put("progress", asdict(progress))
        self._run("COMMIT")
        self._run("BEGIN EXCLUSIVE")

    def add_id(self, key: str, line: int) -> int | None:
        """Note an id; returns the line that has it already, or None."""
        if self._run("INSERT OR IGNORE INTO ids VALUES (?, ?)", key, line).rowcount:
            return None
        found: int = self._run("SELECT line FROM ids WHERE id = ?", key).fetchone()[0]
        return found

    def forget_ids_after(self, line: int) -> None:
        """Forget the ids of lines that are not done."""
        self._run("DELETE FROM ids WHERE line > ?", line)

    def close(self) -> None:
        """Let go of it; what was not checkpointed is forgotten."""
        self._database.close()

    def _get(self, key: str) -> Any:
        row = self._run("SELECT value FROM job WHERE key = ?", key).fetchone()
        return None if row is None else json.loads(row[0])

    def _put(self, key: str, value: Any) -> None:
        self._run("INSERT OR REPLACE INTO job VALUES (?, ?)", key, json.dumps(value, ensure_ascii=False))

    def _run(self, statement: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _fault(self, error: sqlite3.Error) -> Exception:
        code = getattr(error, "sqlite_errorname", "")
        if code.startswith("SQLITE_BUSY"):
            return JobError(f"another process is at work on {self.path}. Wait for it, or end it.")
        if code.startswith("SQLITE_FULL") or code.startswith("SQLITE_IOERR"):
            return OSError(f"cannot write {self.path}: {error}")
        if code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
            return InvalidInputError(
                f"cannot write {self.path}: {error}. The output needs a folder that can be written to."
            )
        return JobError(f"{self.path} is not a job's ledger, or is damaged ({error}). Begin the job anew.")


def differences(stored: Any, given: Any, name: str = "") -> list[str]:
    """Where two settings differ, for people: "options.num_beams was 5 and is 1"."""
    if isinstance(stored, dict) and isinstance(given, dict):
        found = []
        for key in dict.fromkeys([*stored, *given]):
            found += differences(stored.get(key), given.get(key), f"{name}.{key}" if name else key)
        return found
    return [] if stored == given else [f"{name} was {_shown(stored)} and is {_shown(given)}"]


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
