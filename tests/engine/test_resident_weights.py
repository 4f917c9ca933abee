"""Weights in private memory: what they give, what they take, and what they refuse."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.engine.resident_weights import HUGE_PAGE, ResidentWeights
from sabiyarn_edge.errors import InvalidInputError, ModelFolderError
from sabiyarn_edge.model_folder.weights_file import WeightsHeader
from tests.device import EMULATED
from tests.export.models import export_tiny

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

SHAPE = {"n_layer": 2, "n_heads": 4, "n_embd": 256, "vocab_size": 16411, "block_size": 256}
ROUTED = {"use_moe": True, "num_experts": 4, "num_experts_per_tok": 2, "moe_dim": 64}
PROMPT = [5, 900, 16410, 7]


def logits_of(folder: Path, *, resident: bool) -> np.ndarray:
    """[prompt tokens, vocabulary]"""
    decoder = Decoder(folder, num_threads=1, resident=resident)
    decoder.kv_cache.resize(1)
    decoder.runner.run([(0, PROMPT, len(PROMPT), None)])
    return np.array(decoder.runner.logits(0, len(PROMPT)))


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float32", {}), ("bfloat16", {}), ("int8", {}), ("int4", {}), ("int8", ROUTED)]
)
def test_logits_are_those_of_mapped_weights_bit_for_bit(
    tmp_path: Path, dtype: str, shape: dict[str, Any]
) -> None:
    folder = export_tiny(tmp_path, {**SHAPE, **shape}, dtype=dtype, verify=False).folder
    np.testing.assert_array_equal(logits_of(folder, resident=True), logits_of(folder, resident=False))


CHILD = """
import json, re, sys
from pathlib import Path
import onnxruntime
from sabiyarn_edge.engine.decoder import Decoder

def held(name):
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(re.search(name + r":\\s+(\\d+)", text)[1])

def opened(resident):
    decoder = Decoder(Path(sys.argv[1]), num_threads=1, resident=resident)
    decoder.kv_cache.resize(1)
    decoder.runner.run([(0, [5] * 40, 1, None)])
    return decoder

mapped = opened(False)
before = held("Anonymous"), held("AnonHugePages")
mapped = None
resident = opened(True)
now = held("Anonymous"), held("AnonHugePages")
resident = None
print(json.dumps({"more": now[0] - before[0], "huge": now[1] - before[1], "left": held("Anonymous") - before[0]}))
"""


@linux
@pytest.mark.skipif(EMULATED, reason="the emulator's own memory is counted with the process's")
def test_they_take_the_files_size_in_huge_pages_and_give_it_back(tmp_path: Path) -> None:
    folder = export_tiny(tmp_path, SHAPE, dtype="float32", verify=False).folder
    size = (folder / "weights.bin").stat().st_size
    command = [sys.executable, "-c", CHILD, str(folder)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert size > 8 * HUGE_PAGE
    assert abs(found["more"] - size) < 2**20  # malloc's heaps vary by less
    assert found["left"] < 2**20
    if "[never]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii"):
        assert found["huge"] == size // HUGE_PAGE * HUGE_PAGE


def test_a_file_that_is_overwritten_later_changes_nothing(tmp_path: Path) -> None:
    """Mapped weights would change with it, and end the process where it is cut."""
    folder = export_tiny(tmp_path, SHAPE, dtype="int8", verify=False).folder
    generator = EdgeGenerator.from_pretrained(folder, resident=True)
    (before,) = generator.score([PROMPT])
    (folder / "weights.bin").write_bytes(b"")
    (after,) = generator.score([PROMPT])
    np.testing.assert_array_equal(after.log_probs, before.log_probs)


def test_a_pickled_generator_stays_resident(text_model: Path) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, resident=True)
    again = pickle.loads(pickle.dumps(generator))
    assert again._engine.decoder.costs.private_weights == (text_model / "weights.bin").stat().st_size


def test_the_plan_counts_them(text_model: Path) -> None:
    size = (text_model / "weights.bin").stat().st_size
    mapped, private = (EdgeGenerator.plan(text_model, resident=resident) for resident in (False, True))
    assert (mapped.weights_mapped, mapped.weights_private) == (size, 0)
    assert (private.weights_mapped, private.weights_private) == (0, size)
    assert private.peak - mapped.peak == size
    assert "weights, private" in str(private) and "mapped" not in str(private)


def test_a_limit_that_mapped_weights_fit_into_refuses_private_ones(tmp_path: Path) -> None:
    folder = export_tiny(tmp_path, SHAPE, dtype="float32", verify=False).folder
    limit = EdgeGenerator.plan(folder).peak_mib + 0.1
    EdgeGenerator.from_pretrained(folder, memory_limit_mb=limit)
    with pytest.raises(
        InvalidInputError, match=r"allow \d+, or leave resident out, so that the weights are mapped"
    ):
        EdgeGenerator.from_pretrained(folder, memory_limit_mb=limit, resident=True)


@pytest.mark.parametrize(
    "wrong",
    [{"dtype": "float32"}, {"dtype": "no type"}, {"shape": (3,)}, {"shape": ()}, {"nbytes": 0}],
    ids=str,
)
def test_a_header_that_is_wrong_about_a_tensor_is_refused(text_model: Path, wrong: dict[str, Any]) -> None:
    path = text_model / "weights.bin"
    header = WeightsHeader.read(path)
    name = next(iter(header.tensors))
    header.tensors[name] = replace(header.tensors[name], **wrong)
    with pytest.raises(ModelFolderError, match=rf"weights.bin says that {name} is .* tiles are uint8"):
        ResidentWeights(path, header).hand_to(None)


def test_a_file_that_ends_early_is_refused(tmp_path: Path, text_model: Path) -> None:
    header = WeightsHeader.read(text_model / "weights.bin")
    cut = tmp_path / "weights.bin"
    cut.write_bytes((text_model / "weights.bin").read_bytes()[:-1])
    with pytest.raises(ModelFolderError, match=f"was cut to {cut.stat().st_size} bytes while it was read"):
        ResidentWeights(cut, header)


def test_a_tensor_of_another_shape_than_the_graphs_is_an_error_of_its_operator(tmp_path: Path) -> None:
    """onnxruntime takes whatever stands in for a weight; a file must not make operators read beyond it."""
    folder = export_tiny(tmp_path, SHAPE, dtype="int8", verify=False).folder
    path = folder / "weights.bin"
    header = WeightsHeader.read(path)
    for name, tensor in header.tensors.items():
        header.tensors[name] = replace(tensor, shape=(64,), nbytes=64)
    content = path.read_bytes()
    path.write_bytes(header.to_bytes() + content[len(header.to_bytes()) :])
    decoder = Decoder(folder, num_threads=1, resident=True)
    decoder.kv_cache.resize(1)
    with pytest.raises(Exception, match="weights"):
        decoder.runner.run([(0, PROMPT, 1, None)])


def test_a_tensor_of_another_type_than_the_graphs_is_an_error_of_its_operator(
    text_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    def hand_floats(self: ResidentWeights, options: Any) -> list[Any]:
        tensors = WeightsHeader.read(text_model / "weights.bin").tensors
        values = [
            (name, onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(tensor.shape, np.float32)))
            for name, tensor in tensors.items()
        ]
        for name, value in values:
            options.add_initializer(name, value)
        return values

    monkeypatch.setattr(ResidentWeights, "hand_to", hand_floats)
    decoder = Decoder(text_model, num_threads=1, resident=True)
    decoder.kv_cache.resize(1)
    with pytest.raises(Exception, match="input 1 has elements of type 1, not 2"):
        decoder.runner.run([(0, [1, 2], 1, None)])
