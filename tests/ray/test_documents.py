"""What docs/scale.md shows runs as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra [ray] is not installed")

import httpx
import pyarrow.parquet as parquet

from tests.test_docs import REPOSITORY, code

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def test_examples_run(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import serve  # warns of pydantic when it is imported

    monkeypatch.chdir(tmp_path)
    job, dataset, server = (
        compile(block, "docs/scale.md", "exec") for block in code(REPOSITORY / "docs" / "scale.md", "python")
    )
    exec(job, {})
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 100
    exec(dataset, {})
    rows = parquet.read_table(tmp_path / "answers").to_pylist()
    assert sorted(row["id"] for row in rows) == list(range(64))
    assert all(row["answer"] and row["error"] is None for row in rows)
    try:
        exec(server, {})
        body = {"prompt": "<yor> Gbogbo", "max_tokens": 4}
        answer = httpx.post("http://127.0.0.1:8123/v1/completions", json=body, timeout=60)
        assert answer.raise_for_status().json()["usage"]["completion_tokens"] == 4
    finally:
        serve.shutdown()
