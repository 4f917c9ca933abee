"""The plan of a model against made-up amounts of memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sabiyarn_edge.doctor.model import BASE, examine_model
from sabiyarn_edge.doctor.system import System
from sabiyarn_edge.generator import find_model
from sabiyarn_edge.planning.memory_plan import plan_memory
from tests.doctor.boards import board


@pytest.fixture(scope="module")
def sizes() -> tuple[int, int]:
    """Bytes of its own and of mapped weights that nano takes at 1024 positions."""
    facts = examine_model(System(), "nano").facts
    return facts["own"], facts["mapped"]


def examine(tmp_path: Path, available: int, model: str = "nano"):
    files = {"proc/meminfo": f"MemTotal: 500000 kB\nMemAvailable: {available // 1024} kB\n"}
    return examine_model(board(tmp_path, files), model)


def test_enough_memory(tmp_path: Path, sizes: tuple[int, int]) -> None:
    found = examine(tmp_path, sum(sizes) + 4096)
    assert found.status == "ok"
    plan = found.facts["plan"]
    assert sizes == (BASE + plan["peak"], plan["weights_mapped"])
    assert plan["max_length"] == 1024


def test_enough_for_itself_but_not_for_its_weights(tmp_path: Path, sizes: tuple[int, int]) -> None:
    found = examine(tmp_path, sizes[0] + 4096)
    assert found.status == "warning"
    assert "again and again" in found.remedy


def test_enough_to_load_but_not_for_1024_positions(tmp_path: Path, sizes: tuple[int, int]) -> None:
    found = examine(tmp_path, sizes[0] - 4096)
    assert found.status == "problem"
    assert "--max-new-tokens" in found.remedy


def test_not_enough_to_load(tmp_path: Path) -> None:
    found = examine(tmp_path, BASE)
    assert found.status == "problem"
    assert "fewer bits" in found.remedy
    assert "26 MiB are available" in found.text


def test_what_a_folder_lacks(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(find_model("nano"), tmp_path / "model"))
    (copy / "tokenizer.json").unlink()
    found = examine_model(board(tmp_path / "board", {}), str(copy))
    assert found.status == "warning"  # it takes ids
    assert "it has no tokenizer (it takes and gives token ids only; export with --tokenizer" in found.text


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert examine_model(board(tmp_path, {}), "nano").status == "ok"


@pytest.mark.parametrize("lost", ["decoder.onnx", "weights.bin", "config.json"])
def test_a_folder_that_is_not_whole(tmp_path: Path, lost: str) -> None:
    import sabiyarn_edge

    nano = Path(sabiyarn_edge.__file__).parent / "models" / "nano"
    model = Path(shutil.copytree(nano, tmp_path / "model"))
    (model / lost).unlink()
    found = examine(tmp_path, 2**30, str(model))
    assert found.status == "problem"
    assert lost in found.text
    assert "opy" in found.remedy


def test_no_such_model(tmp_path: Path) -> None:
    assert "no-such-model is not a folder" in examine(tmp_path, 2**30, "no-such-model").text


def test_the_plan_grows_with_positions() -> None:
    """Else the remedy of a smaller length would be none."""
    nano = Path(examine_model(System(), "nano").facts["folder"])
    assert plan_memory(nano, max_length=2, prompt_length=1).peak < plan_memory(nano, max_length=1024).peak


def test_a_flipped_bit_of_a_weight_is_found(tmp_path: Path) -> None:
    import sabiyarn_edge

    nano = Path(sabiyarn_edge.__file__).parent / "models" / "nano"
    model = Path(shutil.copytree(nano, tmp_path / "model"))
    weights = bytearray((model / "weights.bin").read_bytes())
    weights[-1] ^= 1
    (model / "weights.bin").write_bytes(weights)
    found = examine(tmp_path, 2**30, str(model))
    assert found.status == "problem"
    assert "weights.bin is damaged" in found.text
    assert found.remedy == "Copy the model folder again."


def test_a_model_without_a_tokenizer_is_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(find_model("nano"), folder)
    (folder / "tokenizer.json").unlink()
    found = examine_model(System(), str(folder))
    assert found.status == "warning"
    assert "token ids only" in found.text


@pytest.mark.parametrize("name", ["tasks.json", "tokenizer.json", "generation_config.json"])
def test_a_broken_file_beside_the_graph_is_a_problem(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(find_model("nano"), folder)
    (folder / name).write_text('{"tasks":', encoding="utf-8")
    found = examine_model(System(), str(folder))
    assert found.status == "problem"
    assert name in found.text
