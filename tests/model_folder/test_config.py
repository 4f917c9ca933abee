"""GPTJXConfig and ModelConfig."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys

import pytest

from sabiyarn_edge.errors import InvalidInputError, ModelFolderError
from sabiyarn_edge.model_folder.config import GPTJXConfig, ModelConfig


def test_defaults_are_those_of_the_authors():
    assert GPTJXConfig().to_dict() == {
        "block_size": 32768,
        "vocab_size": 52050,
        "n_layer": 12,
        "n_heads": 12,
        "n_embd": 768,
        "dropout": 0.0,
        "bias": False,
        "use_kv_cache": True,
        "kv_cache_dtype": "float32",
        "max_batch_size": 1,
    }
    assert GPTJXConfig().head_dim == 64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"block_size": 0}, "block_size is 0; it must be an integer of at least 1"),
        ({"vocab_size": 5.0}, "vocab_size is 5.0"),
        ({"n_layer": True}, "n_layer is True"),
        ({"n_heads": "12"}, "n_heads is '12'"),
        ({"n_embd": -768}, "n_embd is -768"),
        ({"max_batch_size": None}, "max_batch_size is None"),
        ({"n_heads": 5}, "n_embd is 768 and n_heads is 5"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must be in \[0, 1\)"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"dropout": "0"}, "dropout is '0'"),
        ({"bias": 1}, "bias is 1; it must be true or false"),
        ({"use_kv_cache": "yes"}, "use_kv_cache is 'yes'"),
        ({"kv_cache_dtype": "int8"}, "kv_cache_dtype is 'int8'; it must be 'float32' or 'float16'"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(InvalidInputError, match=message):
        GPTJXConfig(**values)


def test_from_dict_reads_what_others_write():
    config = GPTJXConfig.from_dict(
        {
            "architectures": ["GPTJXForCausalLM"],
            "torch_dtype": "float32",
            "block_size": 64,
            "n_head": 4,
            "n_embd": 8,
            "kv_cache_dtype": "torch.float16",
        }
    )
    assert (config.block_size, config.n_heads, config.n_layer, config.kv_cache_dtype) == (
        64,
        4,
        12,
        "float16",
    )


def test_n_head_and_n_heads_may_agree_but_not_differ():
    assert GPTJXConfig.from_dict({"n_head": 4, "n_heads": 4}).n_heads == 4
    with pytest.raises(InvalidInputError, match="n_head is 4 but n_heads is 12"):
        GPTJXConfig.from_dict({"n_head": 4, "n_heads": 12})


def test_json_round_trip(tmp_path):
    config = GPTJXConfig(block_size=33, n_embd=21, n_heads=3, bias=True)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert GPTJXConfig.from_json_file(path) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"3", "holds a number; a JSON object"),
        (b'{"n_layer": 0}', "n_layer is 0"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message) as caught:
        GPTJXConfig.from_json_file(path)
    assert str(caught.value).count(str(path)) == 1


# --- model folders ------------------------------------------------------------------------------------------


def model_config(**values):
    graph_hash = hashlib.sha256(b"decoder").hexdigest()
    others = {"graph_hash": graph_hash, "weights_bytes": 2**30, "weights_hash": "ab"}
    return ModelConfig(gptjx=GPTJXConfig(), **{**others, **values})


def test_model_config_round_trip(tmp_path):
    config = model_config(dtype="bfloat16", kv_cache_dtype="float32")
    config.save(tmp_path)
    assert ModelConfig.load(tmp_path) == config
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["n_layer"] == 12
    assert values["sabiyarn_edge"]["format_version"] == 4
    assert "gptjx" not in values["sabiyarn_edge"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sabiyarn_edge": None}, "not an exported model.*sabiyarn-edge export"),
        ({"n_layer": 0}, "n_layer is 0"),
        ({"sabiyarn_edge": {"format_version": 3}}, "lacks dtype, kv_cache_dtype, graph, graph_hash"),
        ({"format_version": 5}, "format_version is 5, and this sabiyarn_edge reads up to 4. Upgrade"),
        (
            {"format_version": 1},
            "format_version is 1, and this sabiyarn_edge reads folders of version 3 or later",
        ),
        (
            {"format_version": 3, "dtype": "int4"},
            "format_version is 3, .* reads int4 folders of version 4 or later. Export the checkpoint again: sabiyarn",
        ),
        ({"format_version": 2}, "format_version is 2, .* again: sabiyarn-edge export SOURCE OUT --force"),
        ({"format_version": "1"}, "format_version is '1'"),
        ({"dtype": ""}, "dtype is ''"),
        ({"kv_cache_dtype": "int8"}, "kv_cache_dtype is 'int8'"),
        ({"graph_hash": {"decoder": "ab"}}, r"graph_hash is \{'decoder': 'ab'\}; it must be a text"),
        ({"graph": "../decoder.onnx"}, "'../decoder.onnx' is not a plain file name"),
        ({"graph": ["decoder.onnx"]}, "not a plain file name"),
        ({"weights_file": "/etc/passwd"}, "not a plain file name"),
        ({"weights_bytes": -1}, "weights_bytes is -1"),
        ({"weights_hash": None}, "weights_hash is None"),
    ],
)
def test_bad_model_configs(tmp_path, change, message):
    values = model_config().to_dict()
    for key, value in change.items():
        (values if key in values else values["sabiyarn_edge"])[key] = value
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelFolderError, match=message) as caught:
        ModelConfig.load(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_folders_without_weights_of_4_bits_are_read_as_before(tmp_path):
    values = model_config().to_dict()
    values["sabiyarn_edge"] |= {"format_version": 3, "dtype": "int8"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert ModelConfig.load(tmp_path).dtype == "int8"


def test_a_graph_is_read_only_if_it_has_its_hash(tmp_path):
    config = model_config()
    (tmp_path / "decoder.onnx").write_bytes(b"decoder")
    assert config.read_graph(tmp_path) == b"decoder"
    (tmp_path / "decoder.onnx").write_bytes(b"decodes")
    with pytest.raises(ModelFolderError, match=r"decoder\.onnx is damaged or .*Copy the whole model folder"):
        config.read_graph(tmp_path)
    (tmp_path / "decoder.onnx").unlink()
    with pytest.raises(ModelFolderError, match=r"cannot read .*decoder\.onnx: No such file"):
        config.read_graph(tmp_path)


def test_missing_model_folder(tmp_path):
    with pytest.raises(ModelFolderError, match=r"is not a folder.*sabiyarn-edge export"):
        ModelConfig.load(tmp_path / "absent")
    with pytest.raises(ModelFolderError, match="cannot read"):
        ModelConfig.load(tmp_path)


def test_a_bad_config_is_not_saved(tmp_path):
    with pytest.raises(InvalidInputError, match="not a plain file name"):
        model_config(weights_file="a/b").save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_configs_are_values():
    assert GPTJXConfig() == GPTJXConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPTJXConfig().n_layer = 3


def test_config_needs_no_torch():
    code = "import sys, sabiyarn_edge.model_folder.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_may_have_an_int8_cache_and_no_type_that_is_unknown(tmp_path):
    values = model_config(kv_cache_dtype="int8").to_dict()
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert ModelConfig.load(tmp_path).kv_cache_dtype == "int8"
    values["sabiyarn_edge"]["kv_cache_dtype"] = "int4"
    (tmp_path / "config.json").write_text(json.dumps(values))
    message = r"kv_cache_dtype is 'int4'; it must be one of \('float16', 'float32', 'int8'\)"
    with pytest.raises(ModelFolderError, match=message):
        ModelConfig.load(tmp_path)
