"""sabiyarn-edge embed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sabiyarn_edge import EdgeGenerator


def test_gives_a_vector_for_each_line(run, text_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("Gbogbo ènìyàn\n\nọmọ ilé\r\n", encoding="utf-8")
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
    for options, keywords in (
        ([], {}),
        (["--pooling", "last", "--normalize"], {"pooling": "last", "normalize": True}),
    ):
        ran = run("embed", "--model", text_model, "--threads", "1", *options, file)
        records = [json.loads(line) for line in ran.out.splitlines()]
        assert [record["line"] for record in records] == [1, 3]
        expected = generator.embed(["Gbogbo ènìyàn", "ọmọ ilé"], **keywords)
        # As JSON, float32 numbers come back to the last bit.
        np.testing.assert_array_equal(
            np.array([record["embedding"] for record in records], np.float32), expected
        )
        assert (ran.code, ran.err) == (0, "")


def test_a_file_that_is_not_there(run, text_model: Path) -> None:
    ran = run("embed", "--model", text_model, "missing.txt")
    assert (ran.code, ran.error) == (2, "cannot read missing.txt: No such file or directory.")


def test_a_file_that_is_mapped(run, text_model: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("ọmọ\n\nilé\n", encoding="utf-8")
    command = ("embed", tmp_path / "texts.txt", "--output", tmp_path / "v.npy", "--model", text_model)
    ran = run(*command, "--dtype", "float16")
    assert (ran.code, ran.err[:23]) == (0, "[3 lines, 0 with errors")
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert (vectors.dtype, np.isnan(vectors[1]).all()) == (np.float16, True)
    assert "dtype was" in run(*command).error
