"""Running out of memory or of address space: an OutOfMemoryError with what was needed, and a generator that goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import OutOfMemoryError
from sabiyarn_edge.system.memory_errors import ran_out_of_memory
from tests.device import EMULATED

pytestmark = pytest.mark.skipif(
    EMULATED or not Path("/proc/self/statm").exists(), reason="the limit of address space is Linux's own"
)

CHILD = """
import mmap, resource
import onnxruntime
from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import OutOfMemoryError

def limit(spare_mib):
    pages = int(open("/proc/self/statm").read().split()[0])
    most = pages * mmap.PAGESIZE + int(spare_mib * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))

def load():
    return EdgeGenerator.from_pretrained("nano", num_threads=1)

def used():
    generator = load()
    session = generator.session([5, 6, 7] * 300)
    session.generate(max_new_tokens=1)
    session.save(FILE)
    generator.free_kv_cache()
    generator.generate([5], max_new_tokens=1)
    return generator

def attempt(run):
    try:
        run()
    except OutOfMemoryError as error:
        print(error)
    else:
        print("there was enough memory")
"""


def said(code: str, tmp_path: Path) -> list[str]:
    """What a child process prints; nothing of it may come from onnxruntime's log."""
    script = f"FILE = {str(tmp_path / 'session')!r}\n{CHILD}{code}"
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""
    return child.stdout.splitlines()


@pytest.mark.parametrize("spare_mib", [2, 4])
def test_loading_says_what_it_takes(tmp_path: Path, spare_mib: float) -> None:
    [told] = said(f"limit({spare_mib})\nattempt(load)", tmp_path)
    assert "there is no memory to load" in told
    assert "raise the limit" in told


@pytest.mark.parametrize("spare_mib", [4, 12])
@pytest.mark.parametrize(
    "call",
    [
        "generator.generate([[5, 6, 7] * 20] * 64, max_new_tokens=400, num_beams=4)",
        "list(generator.map([[5, 6, 7] * 100] * 64, max_new_tokens=400, do_sample=True, num_return_sequences=8))",
        "list(generator.stream([5, 6, 7] * 400, attn_mask=[[1] * 1200] * 1200, max_new_tokens=200, num_beams=64))",
    ],
    ids=["beams", "draws", "mask"],
)
def test_a_call_says_what_it_takes_and_others_go_on(tmp_path: Path, call: str, spare_mib: float) -> None:
    told, after = said(
        f"generator = used()\nlimit({spare_mib})\nattempt(lambda: {call})\n"
        "print(generator.generate([5, 6], max_new_tokens=2).lengths)",
        tmp_path,
    )
    assert "there is no memory for" in told
    assert after == "[4]"


def test_a_session_says_what_it_takes(tmp_path: Path) -> None:
    told, after = said(
        "generator = used()\nlimit(1.5)\nattempt(lambda: generator.load_session(FILE))\n"
        "print(generator.generate([5, 6], max_new_tokens=2).lengths)",
        tmp_path,
    )
    assert "MiB of keys and values in" in told
    assert after == "[4]"


def test_a_system_without_threads_is_named_and_nobody_waits(
    text_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        for _ in range(2):
            with pytest.raises(OutOfMemoryError, match=r"no further thread .* raise the limit"):
                generator.generate([5], max_new_tokens=1)
    assert generator.generate([5], max_new_tokens=1).lengths == [2]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("x"), True),
        (RuntimeError("Exception during initialization: std::bad_alloc"), True),
        (ImportError("x.so: failed to map segment from shared object"), True),
        (RuntimeError("qkv has shape [1, 2]"), False),
        (ImportError("no module named tokenizers"), False),
    ],
)
def test_words_of_libraries(error: Any, expected: bool) -> None:
    assert ran_out_of_memory(error) is expected
