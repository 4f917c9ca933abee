"""A process that makes calls and says what memory they took: for test_memory_limit.py.

    python -m tests.planning.measured_child MODEL

Reads settings as JSON, one a line, and writes what it measured as JSON, one a line. Memory counts from `import
onnxruntime` on. It is the process's anonymous pages and pages of memory files, each in proportion to its number of
mappings, since beams share theirs. Pages of the weights' file are not counted.
"""

from __future__ import annotations

import gc
import json
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # noqa: F401  (the base line: what it takes is not the model's)

MIB = 2**20
PLANNED = ("max_length", "kv_window", "prefix_cache_mb", "resident")
"""Arguments that from_pretrained and plan share."""


def _bytes_of(file: str, *names: str) -> list[int]:
    text = Path(f"/proc/self/{file}").read_text(encoding="ascii")
    return [int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024 for name in names]  # type: ignore[index]


def held() -> int:
    """Bytes held now."""
    return sum(_bytes_of("smaps_rollup", "Pss_Anon", "Pss_Shmem"))


BASE = held()


class Peak:
    """The most bytes held since reset(); asks after each run of the graph.

    The kernel's high water mark misses nothing, scratch memory within a run included, but counts a shared page as often
    as it is mapped. So while rows share pages, what is held between the runs counts instead.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
        self._most, self._shared = 0, False

    def note(self) -> None:
        high, files, shared = _bytes_of("status", "VmHWM", "RssFile", "RssShmem")
        if shared or self._shared:
            most = max(self._most, held())
            self.reset()  # the mark stands for pages that were counted twice
            self._most, self._shared = most, bool(shared)
        else:
            self._most = max(self._most, high - files)

    def note_held(self) -> None:
        """Note what is held now, and not the mark: it counts a file's pages that were mapped meanwhile."""
        most, shared = max(self._most, held()), self._shared
        self.reset()
        self._most, self._shared = most, shared

    @property
    def mib(self) -> float:
        self.note()
        return (self._most - BASE) / MIB


PEAK = Peak()


class _Watched:
    """A GraphRunner that notes the memory after each run, or several in a row."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def run(self, *arguments: Any) -> None:
        self._runner.run(*arguments)
        PEAK.note()

    def decode(self, *arguments: Any) -> Any:
        found = self._runner.decode(*arguments)
        PEAK.note()
        return found


@contextmanager
def opened(model: str, **options: Any) -> Iterator[Any]:
    from sabiyarn_edge import EdgeGenerator

    with EdgeGenerator.from_pretrained(model, num_threads=2, **options) as generator:
        generator._engine.decoder.runner = _Watched(generator._engine.decoder.runner)
        yield generator


def mask_of(name: str, length: int) -> Any:
    from sabiyarn_edge import prefix_mask, sliding_window_mask

    if name == "prefix":
        return prefix_mask(length * 3 // 4, length)
    if name == "bidirectional":
        return prefix_mask(length)
    if name == "added":  # to the scores
        return np.where(np.tri(length, dtype=bool), np.float32(0.5), np.float32(-np.inf))
    return sliding_window_mask(50, length)


def generate(generator: Any, prompts: list[list[int]], mask: str | None = None, **options: Any) -> None:
    if mask is not None:
        options["attn_mask"] = [mask_of(mask, len(prompt)) for prompt in prompts]
    generator.generate(prompts, eos_token_id=None, **options)


def stream(generator: Any, prompt: list[int], **options: Any) -> None:
    for _ in generator.stream(prompt, eos_token_id=None, **options):
        pass


def sessions(generator: Any, turns: list[list[int]], **options: Any) -> None:
    """Two texts that take turns; the first one is then saved and loaded."""
    options["eos_token_id"] = None
    first, second = generator.session(turns[0]), generator.session(turns[1])
    for turn in turns[2:]:
        first.generate(**options)
        second.generate(turn, **options)
    with tempfile.TemporaryDirectory() as folder:
        first.save(Path(folder) / "text")
        PEAK.note()
        loaded = generator.load_session(Path(folder) / "text")
        PEAK.note_held()
        loaded.generate(turns[-1], **options)


def embed(generator: Any, texts: list[list[int]], **options: Any) -> None:
    generator.embed(texts, **options)


def score(generator: Any, texts: list[list[int]], **options: Any) -> None:
    list(generator.score(texts, **options))


KINDS: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (generate, stream, sessions, embed, score)
}


def make_calls(generator: Any, calls: list[list[Any]], *, together: bool) -> None:
    """Make calls [kind, arguments, options], one after another or all at once."""
    failed: list[BaseException] = []

    def call(kind: str, arguments: list[Any], options: dict[str, Any]) -> None:
        try:
            KINDS[kind](generator, *arguments, **options)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=call, args=arguments) for arguments in calls]
    for thread in threads:
        thread.start()
        if not together:
            thread.join()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def measure(model: str, setting: dict[str, Any]) -> dict[str, float]:
    """Make a setting's calls under the least memory_limit_mb with which the model is loaded and all are admitted.

    Args:
        setting: its "limit", where it is known, is tried first; a refused attempt leaves some memory held.

    Returns:
        MiB: the limit (0 where the setting wants none), the peak, and what was held before the model was loaded.
    """
    from sabiyarn_edge import EdgeGenerator
    from sabiyarn_edge.errors import InvalidInputError

    limit = float(setting.get("limit", 0))
    if setting["limited"] and not limit:
        of_plan = {name: value for name, value in setting["load"].items() if name in PLANNED}
        limit = EdgeGenerator.plan(model, **of_plan).peak_mib + 0.01
    while True:
        gc.collect()
        before = (held() - BASE) / MIB
        PEAK.reset()
        try:
            with opened(model, **setting["load"], memory_limit_mb=limit or None) as generator:
                make_calls(generator, setting["calls"], together=setting["together"])
                return {"limit": limit, "peak": PEAK.mib, "before": before}
        except InvalidInputError as error:
            refused = re.search(r"this call needs ([\d.]+) MiB", str(error))
            if refused is None:
                raise
            limit = float(refused[1]) + 0.06  # it is printed with one digit


def main() -> None:
    model = sys.argv[1]
    for line in sys.stdin:
        print(json.dumps(measure(model, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
