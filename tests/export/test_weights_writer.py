"""weights.bin as an export writes it: places, alignment, bytes and hash."""

from __future__ import annotations

import hashlib
import json
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest

from sabiyarn_edge.errors import ExportError
from sabiyarn_edge.export.tensors import Tensor
from sabiyarn_edge.export.weights_writer import load_checked, plan_weights, write_weights
from sabiyarn_edge.model_folder.weights_file import WeightsHeader, hash_weights_file
from tests.export.models import Exported, export_tiny, untiled_floats

LARGE = {"vocab_size": 4099, "n_embd": 128, "n_heads": 2, "block_size": 64}
"""wte is 2 MiB, c_attn 192 KiB, norms 512 bytes: a tensor for each kind of alignment."""


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_tiny(tmp_path_factory.mktemp("weights"), LARGE, dtype=request.param)


def initializers(exported: Exported) -> dict[str, onnx.TensorProto]:
    graph = onnx.load(exported.folder / "decoder.onnx", load_external_data=False).graph
    return {tensor.name: tensor for tensor in graph.initializer}


def place(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def test_every_tensor_has_the_checkpoints_values(exported: Exported) -> None:
    raw = np.fromfile(exported.folder / "weights.bin", np.uint8)
    found = initializers(exported)
    assert found.keys() == exported.tensors.keys()
    expected = exported.oracle_tensors()
    for name, tensor in found.items():
        where = place(tensor)
        if where:
            assert where["location"] == "weights.bin"
            data = raw[int(where["offset"]) :][: int(where["length"])]
        else:
            data = np.frombuffer(tensor.raw_data, np.uint8)
        if expected[name].ndim == 1:
            np.testing.assert_array_equal(data.view(np.float32), expected[name])
            continue
        rows, width = expected[name].shape
        tiles = data.reshape(tuple(tensor.dims))
        picked = np.random.default_rng(0).choice(rows, 40)  # a number at a time is slow
        for row in picked:
            values = untiled_floats(tiles[row // 8 :][:1], 8, width, weight_type=exported.report.dtype)
            np.testing.assert_array_equal(values[row % 8], expected[name][row])


def test_large_tensors_are_aligned_and_small_ones_inline(exported: Exported) -> None:
    for name, tensor in initializers(exported).items():
        nbytes = int(np.prod(tensor.dims)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        where = place(tensor)
        assert bool(where) == (nbytes >= 16 * 1024), name
        if where:
            assert int(where["offset"]) % (64 * 1024 if nbytes >= 1024 * 1024 else 4096) == 0
            assert int(where["length"]) == nbytes


def test_wte_stands_once_and_serves_both_ends(exported: Exported) -> None:
    model = onnx.load(exported.folder / "decoder.onnx", load_external_data=False)
    wte = "transformer.wte.weight"
    readers = [node.op_type for node in model.graph.node if wte in node.input]
    assert readers == ["Embedding", "Linear"]
    stored = WeightsHeader.read(exported.folder / "weights.bin").tensors
    tiles = -(-exported.shape["vocab_size"] // 8)
    assert [name for name, tensor in stored.items() if tiles in tensor.shape] == [wte]


def test_places_do_not_overlap_and_waste_little(exported: Exported) -> None:
    tensors = list(WeightsHeader.read(exported.folder / "weights.bin").tensors.values())
    end = 64 * 1024
    for tensor in tensors:
        assert 0 <= tensor.offset - end < 64 * 1024
        end = tensor.offset + tensor.nbytes
    assert (exported.folder / "weights.bin").stat().st_size == end


def digest(exported: Exported, names: list[str], ending: str = "") -> str:
    """SHA-256 over tensors as weights_file.py describes it, from decoder.onnx and weights.bin."""
    raw = (exported.folder / "weights.bin").read_bytes()
    found = initializers(exported)
    sha256 = hashlib.sha256()
    for name in names:
        tensor, where = found[name], place(found[name])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        sha256.update(json.dumps([name, dtype, list(tensor.dims)]).encode() + b"\n")
        sha256.update(raw[int(where["offset"]) :][: int(where["length"])] if where else tensor.raw_data)
    sha256.update(ending.encode())
    return sha256.hexdigest()


def test_hash_covers_stored_and_inline_tensors(exported: Exported) -> None:
    places = {name: place(tensor) for name, tensor in initializers(exported).items()}
    inline = digest(exported, [name for name, where in places.items() if not where])
    stored = sorted((name for name in places if places[name]), key=lambda name: int(places[name]["offset"]))
    expected = digest(exported, stored, inline + "\n")

    header = WeightsHeader.read(exported.folder / "weights.bin")
    config = json.loads((exported.folder / "config.json").read_text())["sabiyarn_edge"]
    assert header.inline_hash == inline
    assert {header.weights_hash, config["weights_hash"], exported.report.weights_hash} == {expected}
    assert hash_weights_file(exported.folder / "weights.bin") == expected
    assert config["weights_bytes"] == (exported.folder / "weights.bin").stat().st_size


def test_other_weights_have_another_hash(tmp_path: Path) -> None:
    hashes = {export_tiny(tmp_path / str(seed), {"seed": seed}).report.weights_hash for seed in range(2)}
    assert len(hashes) == 2


def make_tensor(name: str, values: np.ndarray) -> Tensor:
    return Tensor(name, values.dtype.name, values.shape, lambda: values)


def test_tensors_are_loaded_one_at_a_time(tmp_path: Path) -> None:
    """Writing must not hold the whole model: each tensor is gone before the next one is made."""
    made: list[weakref.ref[np.ndarray]] = []

    def load(index: int) -> np.ndarray:
        assert len(made) == index
        assert all(array() is None for array in made)
        values = np.full((64, 1024), index, np.float32)
        made.append(weakref.ref(values))
        return values

    tensors = [Tensor(str(i), "float32", (64, 1024), lambda i=i: load(i)) for i in range(3)]  # type: ignore[misc]
    layout = plan_weights(tensors)
    assert made == []
    told: list[int] = []
    header = write_weights(layout, tmp_path / "weights.bin", progress=told.append)
    assert len(made) == 3
    assert sum(told) == layout.nbytes == 3 * 64 * 1024 * 4
    assert (tmp_path / "weights.bin").stat().st_size == layout.header.end
    assert WeightsHeader.read(tmp_path / "weights.bin") == header


def test_a_view_takes_no_place_of_its_own() -> None:
    table = make_tensor("table", np.zeros((64, 1024), np.float32))
    layout = plan_weights([table, table.viewed_as("folded", (64, 2, 512))])
    assert list(layout.header.tensors) == ["table"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ExportError, match="c_attn holds NaN or infinite values as float16"):
        load_checked(make_tensor("c_attn", np.array([1, value], np.float16)))
