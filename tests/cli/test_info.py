from __future__ import annotations

import json

import onnxruntime
import pytest

import sabiyarn_edge
from tests.cli.conftest import BLOCK_SIZE, VOCAB_SIZE
from tests.export.models import export_tiny

# wte and wpe; then in each of two layers ln_1, j (weight and bias), ln_2 and the matrices; and ln_f.
PARAMETERS = (VOCAB_SIZE + BLOCK_SIZE) * 16 + 2 * (4 * 16 + 12 * 16 * 16) + 16


def test_json_holds_shape_sizes_and_memory(run, text_model):
    ran = run("info", text_model, "--json")
    facts = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert facts["shape"] == {
        "block_size": BLOCK_SIZE, "vocab_size": VOCAB_SIZE, "n_layer": 2, "n_heads": 2, "n_embd": 16,
        "dropout": 0.0, "bias": False,
        "use_kv_cache": True, "kv_cache_dtype": "float32", "max_batch_size": 1,
    }  # fmt: skip
    assert facts["head_dim"] == 8
    assert facts["parameters"] == PARAMETERS
    assert (facts["dtype"], facts["kv_cache_dtype"]) == ("float32", "float32")
    assert facts["kv_bytes_per_token"] == 2 * 2 * 16 * 4  # key and value, layers, width, bytes
    assert facts["kv_bytes_at_full_length"] == BLOCK_SIZE * 256
    assert facts["files"] == {path.name: path.stat().st_size for path in text_model.iterdir()}
    [way] = facts["weights"]
    assert (way["type"], way["block_size"], len(way["matrices"])) == ("float32", None, 2 + 4 * 2)
    graph = facts["graph"]
    assert graph["nodes"] == sum(graph["operators"].values())
    assert graph["operators"]["CachedAttention"] == len(graph["nodes_per_layer"]) == 2
    assert facts["providers"] == onnxruntime.get_available_providers()
    assert facts["versions"]["sabiyarn_edge"] == sabiyarn_edge.__version__
    assert facts["versions"]["onnxruntime"] == onnxruntime.__version__


def test_a_portable_graph_is_named_with_its_sizes(run, tmp_path):
    folder = export_tiny(tmp_path, portable=True, verify=False).folder
    files = json.loads(run("info", folder, "--json").out)["files"]
    for name in ("portable/README.md", "portable/model.onnx", "portable/model.onnx.data"):
        assert files[name] == (folder / name).stat().st_size
    assert "  portable/model.onnx.data " in run("info", folder).out


def test_the_text_says_the_same(run, text_model):
    out = run("info", text_model).out
    assert "2 layers, 2 heads of 8, width 16, 320 tokens, 96 positions" in out
    assert f"{PARAMETERS:,}, stored as float32" in out
    assert "float32, 256 bytes per token and row: 0.0 MiB at 96" in out
    assert "weights.bin" in out
    assert "MiB" in out
    assert "CPUExecutionProvider" in out


def test_how_matrices_are_stored_and_how_many_nodes_there_are(run, tmp_path):
    shape = {"n_layer": 12, "n_embd": 64}
    folder = export_tiny(
        tmp_path,
        shape,
        dtype="int4",
        rounding="nearest",
        keep_int8=["lm_head", "wpe", "first"],
        weight_block_size=32,
        verify=False,
    ).folder
    facts = json.loads(run("info", folder, "--json").out)
    four, eight = facts["weights"]
    assert (four["type"], four["block_size"], len(four["matrices"])) == ("int4", 32, 44)
    assert (eight["type"], eight["block_size"]) == ("int8", 32)
    assert set(eight["matrices"]) == {
        "wte", "wpe", "h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj"
    }  # fmt: skip
    out = run("info", folder).out
    assert "blocks of 32, 6 matrices: h.0, wte, wpe\n" in out
    assert "blocks of 32, 44 matrices: h.1, h.2, h.3, h.4, h.5, h.6, h.7, h.8, h.9, h.10, h.11\n" in out
    counts = facts["graph"]["nodes_per_layer"]
    total, usual = facts["graph"]["nodes"], counts[0]
    row = f"{total} nodes: {usual} in each of 11 layers, {usual + 2} in layer 11, {total - sum(counts)} around them"
    assert row in out


def test_a_mixture_of_experts_and_what_its_folder_lacks(run, tmp_path):
    shape = {"use_moe": True, "expert_per_layer": {"0": 3}, "n_embd": 32, "moe_dim": 64}
    folder = export_tiny(tmp_path, shape, dtype="int8", weight_block_size=32, verify=False).folder
    facts = json.loads(run("info", folder, "--json").out)
    resting = (1 + 2) * 2 * 32 * 64  # one of three experts, and two of four
    assert facts["parameters_at_rest"] == resting
    [way] = facts["weights"]
    assert {"h.0.mlp.fc_bank", "h.1.mlp.proj_bank"} < set(way["matrices"])
    out = run("info", folder).out
    assert "3 in 1 layers, 4 in 1 layers; 2 of them for each token, width 64" in out
    assert f"of which each token meets {facts['parameters'] - resting:,}, stored as int8" in out
    assert "10 matrices: h.0, h.1, wte, wpe" in out
    assert [part.split(" (")[0] for part in facts["missing"]] == [
        "tokenizer",
        "end token",
        "tasks",
        "chat template",
    ]
    assert "export with --tokenizer ID|FOLDER" in out


def test_a_damaged_graph_is_told(run, model):
    data = (model / "decoder.onnx").read_bytes()
    (model / "decoder.onnx").write_bytes(data[: len(data) // 2])
    ran = run("info", model)
    assert ran.code == 1
    assert "decoder.onnx is damaged" in ran.error


def test_a_folder_without_a_report_has_no_count(run, model):
    (model / "export_report.json").unlink()
    assert json.loads(run("info", model, "--json").out)["parameters"] is None
    assert "not counted (no export_report.json)" in run("info", model).out


@pytest.mark.parametrize("name", ["config.json", "decoder.onnx", "weights.bin"])
def test_a_missing_file_is_named(run, model, name):
    (model / name).unlink()
    ran = run("info", model)
    assert ran.code == 1
    assert name in ran.error


def test_truncated_weights_are_told(run, model):
    data = (model / "weights.bin").read_bytes()
    (model / "weights.bin").write_bytes(data[:-100])
    ran = run("info", model)
    assert ran.code == 1
    assert "weights.bin" in ran.error


def test_no_such_model(run):
    ran = run("info", "no-such-model")
    assert ran.code == 1
    assert "no-such-model is not a folder" in ran.error
