"""The bundled model unpacked: exporting it again must give the bundled model."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import onnx

import benchmarks.kv_cache_accuracy as kv_cache_accuracy
from benchmarks.nano_checkpoint import NANO, unpack_nano
from sabiyarn_edge.export import export_model
from sabiyarn_edge.model_folder.config import FORMAT_VERSION
from sabiyarn_edge.model_folder.weights_file import WeightsHeader


def test_nano_unpacked_and_exported_is_nano(tmp_path: Path) -> None:
    """Its graph can be made anew from its weights."""
    checkpoint = unpack_nano(tmp_path / "checkpoint")
    export_model(checkpoint, tmp_path / "nano", dtype="float16", verify=False, evaluate=None, progress=False)
    made = tmp_path / "nano"
    headers = [WeightsHeader.read(folder / "weights.bin") for folder in (made, NANO)]
    assert headers[0] == replace(
        headers[1], format_version=FORMAT_VERSION
    )  # it may be older, and is read all the same
    begin = min(place.offset for place in headers[0].tensors.values())
    assert (made / "weights.bin").read_bytes()[begin:] == (NANO / "weights.bin").read_bytes()[begin:]
    new, bundled = (
        onnx.load(folder / "decoder.onnx", load_external_data=False).graph for folder in (made, NANO)
    )
    assert new.SerializeToString(deterministic=True) == bundled.SerializeToString(deterministic=True)


def test_joined_documents_are_all_there_in_another_order() -> None:
    documents = [[i] * (i + 1) for i in range(20)]
    joined = kv_cache_accuracy.joined(documents)
    assert len(joined) == 4
    before, after = ([*chain.from_iterable(rows)] for rows in (documents, joined))
    assert sorted(after) == sorted(before)
    assert after != before
