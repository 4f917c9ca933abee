"""No network: nothing that runs on a device opens a socket, and an export opens one only for a hub id.

onnxruntime's telemetry would open one some 10 seconds after its import, longer than these tests live. So they also
look for the device id that it makes at once; `python -m tests.campaigns.no_telemetry` waits for the socket.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sabiyarn_edge
from sabiyarn_edge.cli import commands
from tests.campaigns.no_sockets import KILLED, run_without_sockets, why_unavailable
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint

COMMAND = [sys.executable, "-m", "sabiyarn_edge"]
OPEN_SOCKET = "import socket; socket.socket()"
MESSAGES = "<yor> Gbogbo\n/tokens\n"
LIBRARY = """
import pathlib, sys
from sabiyarn_edge import EdgeGenerator, prefix_mask
generator = EdgeGenerator.from_pretrained("nano")
generator.generate("<yor> Gbogbo", max_new_tokens=5)
generator.generate(["<eng> Everyone", "<pcm> Evribodi"], max_new_tokens=5, num_beams=3)
for token in generator.stream("<hau> Su", max_new_tokens=5, do_sample=True, seed=1): pass
generator.generate([5, 6, 7], attn_mask=prefix_mask(3), max_new_tokens=5)
list(generator.score(["Gbogbo ènìyàn"]))
generator.generate("<yor> Gbogbo", max_new_tokens=5)
generator.session("<eng> Everyone").save(sys.argv[1])
generator.load_session(sys.argv[1])
generator.memory_usage()
generator.free_kv_cache()
"""

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable())


@pytest.fixture
def clean(tmp_path: Path) -> dict[str, str]:
    """Return an environment without a word about telemetry, with a new home folder."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(home)}


def device_ids(environment: dict[str, str]) -> list[Path]:
    """Return the files that onnxruntime's telemetry leaves in a home folder."""
    return [path for path in Path(environment["HOME"]).rglob("*") if path.name == "deviceid"]


@pytest.mark.parametrize("but_local", [False, True], ids=["none", "but-local"])
@pytest.mark.parametrize(
    "code",
    [
        OPEN_SOCKET,
        f"import threading; threading.Thread(target=exec, args=[{OPEN_SOCKET!r}]).start()",
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {OPEN_SOCKET!r}], check=True)",
    ],
    ids=["process", "thread", "child"],
)
def test_whoever_opens_a_socket_is_killed(code: str, but_local: bool) -> None:
    done = run_without_sockets([sys.executable, "-c", code], but_local=but_local)
    assert done.returncode == KILLED or f"died with <Signals.SIGSYS: {signal.SIGSYS}>" in done.stderr


@pytest.mark.parametrize(("but_local", "code"), [(False, KILLED), (True, 0)])
def test_local_sockets(but_local: bool, code: int) -> None:
    opens = [sys.executable, "-c", "import socket; socket.socket(socket.AF_UNIX)"]
    assert run_without_sockets(opens, but_local=but_local).returncode == code


def test_telemetry_would_be_seen(clean: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", "import onnxruntime"], env=clean, check=True)
    if not device_ids(clean):
        pytest.skip("this onnxruntime was built without telemetry")


def test_the_library_opens_no_socket(clean: dict[str, str], tmp_path: Path) -> None:
    done = run_without_sockets([sys.executable, "-c", LIBRARY, tmp_path / "chat.session"], env=clean)
    assert (done.returncode, done.stderr) == (0, "")
    assert device_ids(clean) == []


COMMANDS: dict[str, Callable[[Path], list[str | Path]]] = {
    "generate": lambda folder: ["--max-new-tokens", "5", "<yor> Gbogbo"],
    "chat": lambda folder: [chat_model_in(folder), "--max-new-tokens", "5"],
    "score": lambda folder: [text_in(folder)],
    "embed": lambda folder: [text_in(folder)],
    "batch": lambda folder: [text_in(folder), folder / "out.jsonl", "--max-new-tokens", "5"],
    "evaluate": lambda folder: [
        *("nano", "--source", text_in(folder), "--reference", text_in(folder)),
        *("--max-new-tokens", "5", "--samples", "10"),
    ],
    "install": lambda folder: ["nano", folder / "installed"],
    "info": lambda folder: ["nano"],
    "plan": lambda folder: ["nano"],
    "tasks": lambda folder: ["nano"],
    "doctor": lambda folder: ["nano"],
    "bench": lambda folder: ["nano", "--lengths", "8", "--steps", "2", "--rounds", "1", "--seconds", "1"],
    "export": lambda folder: [make_tiny_checkpoint(folder / "checkpoint"), folder / "model", "--quiet"],
}


def chat_model_in(folder: Path) -> Path:
    """nano with a chat template that hands the last message over."""
    model = Path(shutil.copytree(Path(sabiyarn_edge.__file__).parent / "models" / "nano", folder / "chat"))
    (model / "chat_template.jinja").write_text("{{ messages[-1].content }}", encoding="utf-8")
    return model


def text_in(folder: Path) -> Path:
    file = folder / "text.txt"
    file.write_text("Gbogbo ènìyàn ni a bí\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_opens_a_socket(name: str, clean: dict[str, str], tmp_path: Path) -> None:
    if name == "export":
        pytest.importorskip("torch")
    # Importing torch looks up the user's name.
    local = name == "export"
    done = run_without_sockets(
        [*COMMAND, name, *COMMANDS[name](tmp_path)], but_local=local, env=clean, given=MESSAGES
    )
    assert done.returncode == 0, done.stderr
    assert device_ids(clean) == []


def test_every_command_is_tried() -> None:
    """All but the server, which listens: tests/server/test_process.py holds that it opens no other socket."""
    assert {*COMMANDS, "serve"} == {module.__name__.rpartition(".")[2] for module in commands.COMMANDS}


def test_an_export_of_a_hub_id_asks_the_hub(clean: dict[str, str], tmp_path: Path) -> None:
    for package in ("huggingface_hub", "torch"):  # the tokenizers library brings the first alone
        pytest.importorskip(package)
    done = run_without_sockets(
        [*COMMAND, "export", "owner/model", tmp_path / "model"], but_local=True, env=clean
    )
    assert done.returncode == KILLED
    assert not (tmp_path / "model").exists()
