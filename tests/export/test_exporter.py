"""export_model as a whole: what it writes, what it refuses, and that a failure leaves nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from sabiyarn_edge.errors import CheckpointError, ExportError, InvalidInputError
from sabiyarn_edge.export import export_model, exporter
from sabiyarn_edge.export.decoder_graph import Parameters
from sabiyarn_edge.export.report import REPORT_FILE
from sabiyarn_edge.model_folder.config import ModelConfig
from tests.data.make_tiny_checkpoint import TRAPS, make_tiny_checkpoint, random_tensors
from tests.export.models import FeedingLoop, export_tiny
from tests.reference_gptjx import ReferenceGPTJX


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_tiny_checkpoint(tmp_path / "checkpoint")


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_model_folder(source: Path, tmp_path: Path) -> None:
    Tokenizer(WordLevel({"ọ̀rọ̀": 0}, unk_token="ọ̀rọ̀")).save(str(source / "tokenizer.json"))
    report = export_model(source, tmp_path / "model", progress=False)
    assert entries(tmp_path / "model") == [
        "config.json",
        "decoder.onnx",
        "export_report.json",
        "generation_config.json",
        "tokenizer.json",
        "weights.bin",
    ]
    config = ModelConfig.load(tmp_path / "model")
    assert (config.dtype, config.kv_cache_dtype) == ("int8", "float16")
    assert config.gptjx.to_dict().items() <= json.loads((source / "config.json").read_text()).items()
    assert json.loads((tmp_path / "model" / "export_report.json").read_text()) == report.to_dict()


def test_the_report(source: Path, tmp_path: Path) -> None:
    report = export_model(source, tmp_path / "model", progress=False)
    assert report.parameters == sum(tensor.size for tensor in random_tensors().values())
    assert report.kv_bytes_per_token == 2 * 2 * 16 * 2  # key and value, layers, n_embd, bytes
    assert report.source_block_size == report.block_size == 64
    files = [path for path in (tmp_path / "model").iterdir() if path.name != REPORT_FILE]  # written last
    sizes = {path.name: path.stat().st_size / 2**20 for path in files}
    assert report.sizes_mib["weights.bin"] == pytest.approx(sizes["weights.bin"], abs=1e-3)
    assert report.sizes_mib["total"] == pytest.approx(sum(sizes.values()), abs=1e-3)
    assert {"onnxruntime", "torch", "onnx", "numpy", "python"} <= report.versions.keys()
    check = report.verification
    assert check is not None
    assert (check.prompt_tokens, check.generated_tokens) == (16, 48)
    assert sum(check.prefill_chunks) == 16
    assert len(check.prefill_chunks) == 3
    assert check.greedy_agreement == check.greedy_run_agreement == 48
    assert 0 < check.largest_prefill_difference < check.difference_bound
    assert 0 < check.largest_decode_difference < check.difference_bound


@pytest.mark.parametrize("trap", TRAPS)
def test_every_oddity_of_checkpoints(tmp_path: Path, trap: str) -> None:
    """The graph must compute the same whatever the file looks like: loading is the model's, names are not."""
    source = make_tiny_checkpoint(tmp_path / "checkpoint", traps=[trap])
    report = export_model(
        source, tmp_path / "model", dtype="float32", kv_cache_dtype="float32", progress=False
    )
    plain = export_tiny(tmp_path / "plain", kv_cache_dtype="float32").report
    rounded = trap in ("half", "bfloat16")
    assert (report.weights_hash == plain.weights_hash) != rounded
    assert report.verification is not None


def test_j_bias_is_exported_although_bias_is_false(tmp_path: Path) -> None:
    """Released checkpoints have it; without it the text is plausible, and wrong."""
    exported = export_tiny(tmp_path, {"bias": False, "j_bias": True}, kv_cache_dtype="float32")
    tokens = np.arange(12)
    logits = FeedingLoop(exported, rows=1, capacity=16).feed(tokens)
    shape = {"n_layer": exported.shape["n_layer"], "n_heads": exported.shape["n_heads"]}
    without = {name: values for name, values in exported.tensors.items() if not name.endswith("j.bias")}
    np.testing.assert_allclose(logits, exported.oracle().logits(tokens), atol=1e-4)
    assert np.abs(logits - ReferenceGPTJX(without, **shape).logits(tokens)).max() > 0.1


@pytest.mark.parametrize("max_length", [2, 40, 64])
def test_max_length_cuts_the_positions(tmp_path: Path, max_length: int) -> None:
    exported = export_tiny(tmp_path, max_length=max_length)
    assert exported.report.block_size == max_length
    assert exported.report.source_block_size == 64
    assert ModelConfig.load(exported.folder).gptjx.block_size == max_length
    logits = FeedingLoop(exported, rows=1, capacity=64).feed(np.arange(max_length))
    np.testing.assert_allclose(logits, exported.oracle().logits(np.arange(max_length)), atol=0.02)


def test_one_position_is_too_few(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="max_length is 1; it must be an integer of at least 2"):
        export_model(source, tmp_path / "out", max_length=1)
    with pytest.raises(ExportError, match="this checkpoint has 1 position"):
        export_tiny(tmp_path, {"block_size": 1})


def test_max_length_beyond_block_size(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"max_length is 65, but block_size is 64.*at most 64"):
        export_model(source, tmp_path / "model", max_length=65, progress=False)
    assert entries(tmp_path) == ["checkpoint"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dtype": "float8"},
            "dtype is 'float8'; it must be one of float32, float16, bfloat16, int8, int4, keep",
        ),
        ({"kv_cache_dtype": "int3"}, "kv_cache_dtype is 'int3'; it must be one of"),
        ({"max_length": 0}, "max_length is 0; it must be an integer of at least 2"),
        ({"max_length": True}, "max_length is True"),
        ({"max_length": 2.5}, "max_length is 2.5"),
    ],
)
def test_wrong_options(source: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        export_model(source, tmp_path / "model", progress=False, **options)


def test_heads_that_onnxruntime_cannot_run(tmp_path: Path) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint", n_embd=36, n_heads=3)
    with pytest.raises(ExportError, match=r"heads are 12 wide \(n_embd 36 / n_heads 3\).* multiple of 8"):
        export_model(source, tmp_path / "model", progress=False)
    assert entries(tmp_path) == ["checkpoint"]


def test_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        export_model(tmp_path / "empty", tmp_path / "model", progress=False)
    with pytest.raises(CheckpointError, match="neither a folder nor a hub id"):
        export_model(tmp_path / "absent", tmp_path / "model", progress=False)
    assert entries(tmp_path) == ["empty"]


def test_an_existing_out_needs_force(source: Path, tmp_path: Path) -> None:
    first = export_model(source, tmp_path / "model", progress=False)
    with pytest.raises(ExportError, match="exists already"):
        export_model(source, tmp_path / "model", progress=False)
    assert ModelConfig.load(tmp_path / "model").weights_hash == first.weights_hash
    second = export_model(source, tmp_path / "model", dtype="float16", force=True, progress=False)
    assert ModelConfig.load(tmp_path / "model").weights_hash == second.weights_hash != first.weights_hash
    assert entries(tmp_path) == ["checkpoint", "model"]


def test_the_checkpoint_itself_is_never_replaced(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is not an exported model"):
        export_model(source, source, force=True, progress=False)
    assert entries(source) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("step", "failure", "expected"),
    [
        ("write_weights", OSError(errno.ENOSPC, "No space left on device"), ExportError),
        ("write_onnx", OSError(errno.ENOSPC, "No space left on device"), ExportError),
        ("copy_tokenizer", OSError(errno.EIO, "Input/output error"), ExportError),
        ("verify_export", KeyboardInterrupt(), KeyboardInterrupt),
        ("make_reference", MemoryError(), MemoryError),
    ],
)
def test_a_failure_at_any_step_leaves_nothing(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    failure: BaseException,
    expected: type[BaseException],
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise failure

    monkeypatch.setattr(exporter, step, fail)
    with pytest.raises(expected):
        export_model(source, tmp_path / "model", progress=False)
    assert entries(tmp_path) == ["checkpoint"]


def test_a_disk_without_room_is_refused_with_both_numbers(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1024 * 1024))
    with pytest.raises(ExportError, match=r"needs 4\.\d MiB, but 1\.0 MiB are free"):
        export_model(source, tmp_path / "model", progress=False)
    assert entries(tmp_path) == ["checkpoint"]


@pytest.mark.parametrize("lost", ["j.bias", "mlp.c_proj.bias", "attn.c_attn.bias"])
def test_a_graph_that_loses_a_bias_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint", bias=True)
    optional = Parameters.optional_vector
    monkeypatch.setattr(
        Parameters,
        "optional_vector",
        lambda self, name: None if name.endswith(lost) else optional(self, name),
    )
    with pytest.raises(ExportError, match="does not reproduce the model: a logit differs by"):
        export_model(source, tmp_path / "model", dtype="float32", progress=False)
    assert entries(tmp_path) == ["checkpoint"]
    report = export_model(source, tmp_path / "model", verify=False, progress=False)
    assert report.verification is None


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint", layout="bin")
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    state["transformer.h.0.mlp.c_fc.weight"][0, 0] = 1e5
    torch.save(state, source / "pytorch_model.bin")
    with pytest.raises(ExportError, match=r"c_fc.weight holds NaN or infinite values as float16"):
        export_model(source, tmp_path / "model", dtype="float16", progress=False)
    assert entries(tmp_path) == ["checkpoint"]
    export_model(source, tmp_path / "model", progress=False)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.filterwarnings("error")
def test_a_checkpoint_that_holds_nan_or_inf_is_refused_by_the_tensor(
    tmp_path: Path, dtype: str, value: float
) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint", layout="bin")
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    state["transformer.h.0.mlp.c_fc.weight"][0, 0] = value
    torch.save(state, source / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"checkpoint: transformer.h.0.mlp.c_fc.weight holds NaN or inf"
    ):
        export_model(source, tmp_path / "model", dtype=dtype, progress=False)
    assert entries(tmp_path) == ["checkpoint"]


def test_a_vocabulary_of_one_token_is_refused(tmp_path: Path) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint", vocab_size=1)
    with pytest.raises(CheckpointError, match="vocab_size is 1, but a model needs two tokens"):
        export_model(source, tmp_path / "model", progress=False)


def test_progress_goes_to_stderr(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_model(source, tmp_path / "model")
    captured = capsys.readouterr()
    assert captured.out == ""
    for stage in ("reading checkpoint", "running torch model", "writing weights", "checking graph"):
        assert stage in captured.err
    export_model(source, tmp_path / "model", progress=False, force=True)
    assert capsys.readouterr().err == ""


def test_files_have_the_users_permissions(source: Path, tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        export_model(source, tmp_path / "model", progress=False)
    finally:
        os.umask(previous)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "model" / "weights.bin").stat().st_mode & 0o777 == 0o640


def test_tasks_that_were_given_are_written_and_a_bad_file_is_refused_first(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given.json"
    given.write_text('{"format_version": 1, "tasks": {"say": {"template": "{text} :"}}}')
    export_model(source, tmp_path / "model", tasks=given, progress=False, verify=False)
    assert (tmp_path / "model" / "tasks.json").read_bytes() == given.read_bytes()
    given.write_text('{"format_version": 1,\n "tasks": {"say": {}}}')
    monkeypatch.setattr(exporter.Checkpoint, "load", lambda *_: pytest.fail("the checkpoint was read"))
    with pytest.raises(InvalidInputError, match=r"given\.json, line 2: tasks\.say: it has no 'template'"):
        export_model(source, tmp_path / "other", tasks=given, progress=False)
    assert not (tmp_path / "other").exists()
