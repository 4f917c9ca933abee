"""What runs on Ray gives what one process gives."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="the extra [ray] is not installed")

import pyarrow as pa
import pyarrow.parquet as parquet

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.cli import main
from sabiyarn_edge.errors import InvalidInputError, JobError
from sabiyarn_edge.jobs import run_batch
from sabiyarn_edge.jobs.dispatch import MOST_LOSSES
from sabiyarn_edge.ray import BatchMapper, RayActors
from sabiyarn_edge.ray.worker import Worker
from tests.campaigns import ray_jobs
from tests.campaigns.batch_kills import write_input
from tests.jobs.conftest import records_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(scope="module")
def job(text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an input, and what one process makes of it."""
    folder = tmp_path_factory.mktemp("job")
    write_input(folder / "in.jsonl", 200, random.Random(1))
    with EdgeGenerator.from_pretrained(text_model, num_threads=1) as generator:
        run_batch(generator, folder / "in.jsonl", folder / "one.jsonl", options=ray_jobs.OPTIONS)
    return folder


@pytest.mark.parametrize("kills", [0, 1])
def test_a_job_gives_the_bytes_of_one_process(cluster: None, job: Path, text_model: Path, kills: int) -> None:
    found = ray_jobs.check_job(job, str(text_model), random.Random(kills), kills=kills)
    assert found["kills"] == kills


def test_actors_end_what_one_process_began(cluster: None, job: Path, text_model: Path) -> None:
    assert ray_jobs.check_resumed(job, str(text_model))["before"] == 30


@pytest.mark.parametrize("kills", [0, 1])
def test_a_dataset_has_the_records_of_one_process(
    cluster: None, job: Path, text_model: Path, tmp_path: Path, kills: int
) -> None:
    (tmp_path / "in.jsonl").write_bytes((job / "in.jsonl").read_bytes())
    ray_jobs.check_mapper(tmp_path, str(text_model), random.Random(2), kills=kills)


def test_replicas_answer_as_generate_does(cluster: None, text_model: Path) -> None:
    ray_jobs.check_serve(str(text_model), replicas=2)


def test_parquet_on_the_command_line(cluster: None, text_model: Path, tmp_path: Path) -> None:
    rows = [{"id": f"a{index}", "prompt": "ọmọ " * index, "page": index} for index in range(1, 9)]
    parquet.write_table(pa.Table.from_pylist([*rows, {"id": "none"}]), tmp_path / "in.parquet")
    command = ["--model", str(text_model), "--max-new-tokens", "3", "--quiet"]
    ray_options = ["--engine", "ray", "--ray-actors", "2"]
    code = main(
        ["batch", str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), *command, *ray_options]
    )
    assert code == 1  # the row without a prompt
    with EdgeGenerator.from_pretrained(text_model, num_threads=1) as generator:
        run_batch(generator, [*rows, {"id": "none"}], tmp_path / "one.jsonl", options={"max_new_tokens": 3})
    expected = records_of(tmp_path / "one.jsonl")
    with EdgeGenerator.from_pretrained(text_model, num_threads=1) as generator:
        for refused in ({"output": "in.parquet"}, {"output": "o.jsonl", "format": "lines"}):
            with pytest.raises(InvalidInputError, match=r"is the input, too|format is lines"):
                run_batch(generator, tmp_path / "in.parquet", tmp_path / refused.pop("output"), **refused)  # type: ignore[arg-type]
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in table] == [record["id"] for record in expected]
    assert [row["answer"] for row in table] == [record.get("text") for record in expected]
    assert table[-1]["error"] == expected[-1]["error"]["message"]
    assert (tmp_path / "out.parquet.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


def test_a_line_that_ends_its_actor_ends_the_job(
    cluster: None, text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and what was done before is safe."""
    lines = [{"id": f"a{index}", "prompt": "ọmọ"} for index in range(4)]
    monkeypatch.setattr("sabiyarn_edge.ray.actors.Worker", Deadly)
    with (
        EdgeGenerator.from_pretrained(text_model, num_threads=1) as generator,
        pytest.raises(JobError, match=f"the id 'a2' was lost {MOST_LOSSES} times"),
    ):
        run_batch(
            generator,
            lines,
            tmp_path / "out.jsonl",
            options={"max_new_tokens": 2},
            workers=RayActors(text_model, actors=2),
        )
    assert all(record["id"] in ("a0", "a1") for record in records_of(tmp_path / "out.jsonl"))


class Deadly(Worker):
    """Ends its process at a line."""

    def answer(self, lines: Any) -> Any:
        if any(request.id == "a2" for request, _ in lines):
            os._exit(1)
        return super().answer(lines)


def test_what_is_refused(cluster: None, text_model: Path, tmp_path: Path) -> None:
    def run(workers: RayActors) -> None:
        with EdgeGenerator.from_pretrained(text_model, num_threads=1) as generator:
            run_batch(generator, ["a"], tmp_path / "out.jsonl", workers=workers, overwrite=True)

    with pytest.raises(JobError, match="9 actors of 1 CPUs are wanted, but the cluster has room for 2"):
        run(RayActors(text_model, actors=9))
    with pytest.raises(JobError, match=r"a node has another model at .*: max_length was 96 and is 80"):
        run(RayActors(text_model, actors=1, max_length=80))
    with pytest.raises(InvalidInputError, match="actors is 0, but must be an integer of at least 1"):
        RayActors(text_model, actors=0)
    mapper = BatchMapper(text_model)
    with pytest.raises(InvalidInputError, match='no column "id" among prompt'):
        mapper(pa.table({"prompt": ["a"]}))
    with pytest.raises(InvalidInputError, match='Give map_batches batch_format="pyarrow"'):
        mapper({"prompt": ["a"]})  # type: ignore[arg-type]


def test_an_address_where_nobody_answers(text_model: Path, tmp_path: Path) -> None:
    """In a process of its own, as this one is connected. Ray itself would try for two minutes and end the process."""
    (tmp_path / "in.txt").write_text("a")
    files = [str(tmp_path / name) for name in ("in.txt", "out.jsonl")]
    command = [sys.executable, "-m", "sabiyarn_edge", "batch", *files, "--model", str(text_model)]
    ran = subprocess.run(
        [*command, "--engine", "ray", "--ray-address", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=100,  # of a hang: an answer is there within 30 s, behind some imports
    )
    assert ran.returncode == 1
    assert "error: no Ray cluster answers at 127.0.0.1:1. Give host:port of its head node" in ran.stderr
    assert "Traceback" not in ran.stderr
