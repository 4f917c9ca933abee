"""Load is mapping: weights are pages of their file, never copies of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.device import EMULATED
from tests.export.models import export_tiny

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
    pytest.mark.skipif(EMULATED, reason="an emulated process sees its mappings without what they take"),
]

SHAPE = {"n_layer": 3, "n_heads": 4, "n_embd": 256, "vocab_size": 16411, "block_size": 512}
"""6.7 million parameters, of which float32 takes 26 MiB."""

CHILD = """
import json, sys
from pathlib import Path
import onnxruntime
from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.system.process_memory import process_memory

before = process_memory()["process_anonymous"]
decoder = Decoder(Path(sys.argv[1]), num_threads=1)
decoder.kv_cache.resize(1)
decoder.runner.run([(0, [5] * 40, 1, None)])
grown = process_memory()["process_anonymous"] - before
mapped = {"Rss": 0, "Anonymous": 0, "Private_Dirty": 0}
inside = False
for line in Path("/proc/self/smaps").read_text().splitlines():
    name, _, rest = line.partition(":")
    if " " in name:  # the head of a mapping: addresses, permissions, file
        inside = line.endswith("/weights.bin")
    elif inside and name in mapped:
        mapped[name] += 1024 * int(rest.split()[0])
print(json.dumps({"grown": grown, **mapped}))
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_weights_are_clean_pages_of_their_file(tmp_path: Path, dtype: str) -> None:
    folder = export_tiny(tmp_path, SHAPE, dtype=dtype, verify=False).folder
    size = (folder / "weights.bin").stat().st_size
    command = [sys.executable, "-c", CHILD, str(folder)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["Anonymous"] == found["Private_Dirty"] == 0
    assert found["Rss"] > 0.9 * size - 512 * 256 * 4  # all of it was read but rows of the position table
    # The graph, the KV cache and scratch of a run; float32 weights alone would be 26 MiB and more.
    assert found["grown"] < 12 * 2**20
