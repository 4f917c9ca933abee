"""portable/ as files: where matrices lie, what is checked, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sabiyarn_edge.errors import ExportError
from sabiyarn_edge.export import export_model, portable_folder
from sabiyarn_edge.export.decoder_graph import Parameters
from sabiyarn_edge.export.portable_folder import PortableModel
from sabiyarn_edge.export.portable_graph import _PortableGraph
from sabiyarn_edge.model_folder.config import GPTJXConfig
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint, random_tensors
from tests.export.models import export_tiny


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_tiny_checkpoint(tmp_path / "checkpoint", n_embd=32)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_where_it_is_asked_for(source: Path, tmp_path: Path) -> None:
    report = export_model(source, tmp_path / "model", verify=False, progress=False)
    assert report.portable is None
    assert not (tmp_path / "model" / "portable").exists()


@pytest.mark.parametrize(
    ("dtype", "stored"), [("float32", np.float32), ("float16", np.float16), ("int8", np.float32)]
)
def test_every_matrix_is_external(tmp_path: Path, dtype: str, stored: type[np.floating]) -> None:
    exported = export_tiny(tmp_path, dtype=dtype, portable=True, verify=False)
    folder = exported.folder / "portable"
    assert entries(folder) == ["README.md", "model.onnx", "model.onnx.data"]
    data = (folder / "model.onnx.data").read_bytes()
    found, end = {}, 0
    for tensor in onnx.load(folder / "model.onnx", load_external_data=False).graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if not place:
            assert len(tensor.dims) < 2
            continue
        offset, nbytes = int(place["offset"]), int(place["length"])
        assert place["location"] == "model.onnx.data"
        assert offset % 65536 == 0  # so that every system can map it
        assert offset >= end
        end = offset + nbytes
        found[tensor.name] = np.frombuffer(data[offset:end], stored).reshape(tensor.dims)
    assert end == len(data)
    expected = {name: values for name, values in exported.tensors.items() if values.ndim == 2}
    assert found.keys() == expected.keys()  # wte once: it is the head too
    for name, values in expected.items():
        table = name.endswith(("wte.weight", "wpe.weight"))
        np.testing.assert_array_equal(found[name], (values if table else values.T).astype(stored))


def test_the_report(source: Path, tmp_path: Path) -> None:
    report = export_model(source, tmp_path / "model", portable=True, progress=False)
    assert report.portable is not None
    assert (report.portable.opset, report.portable.dtype) == (17, "float32")
    check = report.portable.verification
    assert check is not None
    assert 0 < check.largest_difference < check.difference_bound == pytest.approx(1e-3 * check.logit_spread)
    for name in ("README.md", "model.onnx", "model.onnx.data"):
        size = (tmp_path / "model" / "portable" / name).stat().st_size
        assert report.sizes_mib[f"portable/{name}"] == pytest.approx(size / 2**20, abs=1e-3)


@pytest.mark.parametrize("max_length", [2, 3, 64])
def test_any_number_of_positions_is_verified(source: Path, tmp_path: Path, max_length: int) -> None:
    report = export_model(source, tmp_path / "model", max_length=max_length, portable=True, progress=False)
    assert report.portable is not None
    assert report.portable.verification is not None


@pytest.mark.parametrize("method", ["_gelu", "_norm"])
def test_a_wrong_graph_is_not_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def skip(self: object, *arguments: str) -> str:
        return arguments[-1]

    monkeypatch.setattr(_PortableGraph, method, skip)
    with pytest.raises(ExportError, match="the portable graph does not reproduce the model: a logit differs"):
        export_model(source, tmp_path / "model", portable=True, progress=False)
    assert entries(tmp_path) == ["checkpoint"]


def test_a_graph_beyond_protobufs_limit_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable_folder, "PROTOBUF_LIMIT", 5_000)
    with pytest.raises(ExportError, match=r"graph takes [\d,]+ bytes without its matrices.* at most 5,000"):
        export_model(source, tmp_path / "model", portable=True, progress=False)
    assert entries(tmp_path) == ["checkpoint"]


def test_matrices_beyond_protobufs_limit_have_places() -> None:
    """wte alone has 6 GiB: nothing is loaded to describe it, and offsets pass 32 bits."""
    shape: dict[str, Any] = {"vocab_size": 200_000, "n_embd": 8192, "n_heads": 64, "n_layer": 1}
    shapes = {name: values.shape for name, values in random_tensors(n_layer=1, n_embd=16).items()}
    width = {16: 8192, 48: 3 * 8192, 64: 4 * 8192, 97: 200_000}
    shapes = {name: tuple(width[size] for size in dims) for name, dims in shapes.items()}

    def read(name: str) -> np.ndarray:
        raise AssertionError(f"{name} was read")

    model = PortableModel.build(Parameters(shapes, read), GPTJXConfig(**shape), "float32")
    table = model.places["transformer.wte.weight"]
    assert table.nbytes == 200_000 * 8192 * 4
    others = [place for name, place in model.places.items() if name != "transformer.wte.weight"]
    assert min(place.offset for place in others) >= table.offset + table.nbytes
    assert (
        model.data_nbytes
        >= model.stored_nbytes
        == sum(4 * np.prod(s) for s in shapes.values() if len(s) == 2)
    )


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    parameters = Parameters({"w": (1, 1)}, lambda name: np.full((1, 1), 1e5, np.float32))
    graph = _PortableGraph(parameters, GPTJXConfig(n_embd=1, n_heads=1), "float16")
    graph._stored("w", transposed=False)
    with pytest.raises(ExportError, match="w holds NaN or infinite values as float16"):
        PortableModel(graph.graph, graph.config, "float16").write(tmp_path)


def test_the_disk_must_have_room_for_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1024 * 1024))

    def needed(**options: bool) -> float:
        with pytest.raises(ExportError, match="MiB are free") as caught:
            export_model(source, tmp_path / "model", progress=False, **options)
        return float(str(caught.value).split(" needs ")[1].split()[0])

    # Ten matrices at multiples of 64 KiB, two tables and four of each layer; the last, c_proj of [128, 32], is not
    # padded. The message rounds both numbers to 0.1.
    assert needed(portable=True) - needed() == pytest.approx((9 * 64 + 16) / 1024, abs=0.1)
