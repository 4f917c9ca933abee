"""The same random model in every engine's format, made once in a folder and kept there.

GPTJX with random weights for this package, and in onnxruntime's own operators for onnxruntime-genai and plain
onnxruntime; for llama.cpp, CTranslate2 and transformers a GPT-2 of the same shape with the same matrices, which is
GPTJX without the layer norm j.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import sabiyarn_edge.export
from benchmarks.onnxruntime_graph import write_onnxruntime_folder
from sabiyarn_edge.bench.traffic import weight_bytes_per_step
from sabiyarn_edge.export import export_model
from sabiyarn_edge.export.block_plan import BlockPlan
from sabiyarn_edge.model_folder.config import ModelConfig

__all__ = [
    "SHAPES",
    "checkpoint",
    "ctranslate2_model",
    "export",
    "genai_model",
    "gguf_file",
    "gpt2_folder",
    "onnxruntime_folder",
    "with_tokenizer",
]

SHAPES: dict[str, dict[str, Any]] = {
    "full": {"block_size": 4096, "vocab_size": 52050, "n_layer": 12, "n_heads": 12, "n_embd": 768},
    "long": {"block_size": 32768, "vocab_size": 52050, "n_layer": 12, "n_heads": 12, "n_embd": 768},
    "routed": {
        **{"block_size": 32768, "vocab_size": 52050, "n_layer": 12, "n_heads": 12, "n_embd": 768},
        **{"use_moe": True, "num_experts": 4, "num_experts_per_tok": 2, "expert_per_layer": {"0": 2, "1": 3}},
    },
    "small": {"block_size": 1024, "vocab_size": 2048, "n_layer": 2, "n_heads": 4, "n_embd": 256},
}
"""SabiYarn-125M's shape with two numbers of positions, that of the mixture of experts SabiYarn_MoE-280M, and a small
shape to try a benchmark with."""

GPT2_BLOCK = {
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
"""GGUF's name of each matrix of a block -> the checkpoint's."""

Tensors = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


@contextmanager
def _made(path: Path) -> Iterator[Path]:
    """A place to make `path` at, which takes its name when all went well."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def checkpoint(work: Path, shape: str) -> Path:
    """Make a random checkpoint as a Hugging Face folder."""
    folder = work / f"checkpoint-{shape}"
    if not folder.is_dir():
        import torch

        from sabiyarn_edge.modeling import GPTJXConfig, GPTJXForCausalLM

        torch.manual_seed(0)
        with _made(folder) as partial:
            GPTJXForCausalLM(GPTJXConfig(**SHAPES[shape]), j_bias=True).save_pretrained(partial)
    return folder


def export(work: Path, shape: str, name: str, **options: Any) -> Path:
    """Export the checkpoint; again if the exporter or the options have changed."""
    out = work / f"sabiyarn-{shape}-{name}"
    stamp = work / f"{out.name}.exporter"
    current = _exporter_version() + json.dumps(options, sort_keys=True)
    if not out.is_dir() or not stamp.is_file() or stamp.read_text(encoding="ascii") != current:
        export_model(checkpoint(work, shape), out, verify=False, force=True, progress=False, **options)
        stamp.write_text(current, encoding="ascii")
    return out


def onnxruntime_folder(work: Path, shape: str, name: str, *, bits: int, block_size: int = 128) -> Path:
    """Export the checkpoint to onnxruntime's own operators. With 4 bits, all matrices but the positions have 4."""
    out = work / f"onnxruntime-{shape}-{name}"
    stamp = work / f"{out.name}.exporter"
    current = _exporter_version() + str((bits, block_size))
    if not out.is_dir() or not stamp.is_file() or stamp.read_text(encoding="ascii") != current:
        from sabiyarn_edge.modeling import GPTJXConfig

        plan = BlockPlan(f"int{bits}", bits, block_size, ("wpe",) if bits == 4 else ())
        with _made(out) as partial:
            write_onnxruntime_folder(partial, GPTJXConfig(**SHAPES[shape]), _tensors(work, shape), plan)
        stamp.write_text(current, encoding="ascii")
    return out


def _exporter_version() -> str:
    """Return the hash of the exporter's source, and of the code that writes onnxruntime's graph."""
    digest = hashlib.sha256()
    exporter = Path(sabiyarn_edge.export.__file__).parent
    ours = (Path(__file__).with_name(f"onnxruntime_{part}.py") for part in ("blocks", "graph"))
    for path in (*sorted(exporter.glob("*.py")), *ours):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _tensors(work: Path, shape: str) -> Tensors:
    from safetensors.numpy import load_file

    return dict(load_file(checkpoint(work, shape) / "model.safetensors"))


def _once(path: Path, make: Callable[[Path], None]) -> Path:
    if not path.is_dir():
        with _made(path) as partial:
            make(partial)
    return path


def vocabulary(shape: str) -> list[str]:
    """A vocabulary for random models, in byte-level BPE's letters: all bytes, "ab", which alone merges, and words."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    size: int = SHAPES[shape]["vocab_size"]
    return [*letters, "ab", *(f"\u0120w{i}" for i in range(len(letters) + 1, size))]  # U+0120: a space


def write_tokenizer(folder: Path, shape: str) -> None:
    """Write tokenizer.json with `vocabulary`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    ids = {token: i for i, token in enumerate(vocabulary(shape))}
    tokenizer = Tokenizer(models.BPE(ids, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


def with_tokenizer(folder: Path, shape: str) -> Path:
    """Make the model folder `folder` again with a tokenizer; the files are hard links."""
    out = folder.with_name(f"{folder.name}-text")
    with _made(out) as partial:
        for path in folder.iterdir():
            (partial / path.name).hardlink_to(path)
        write_tokenizer(partial, shape)
    return out


def gguf_file(work: Path, shape: str, weights: str, *, text: bool = False) -> Path:
    """Make a GPT-2 for llama.cpp, with all matrices, the head included, as `weights` ("F32", "Q8_0", "Q4_0").

    Args:
        text: with `vocabulary`; else it takes and gives ids alone.
    """
    folder = work / f"llama_cpp-{shape}-{weights}{'-text' if text else ''}"
    _once(folder, lambda partial: _write_gguf(partial / "model.gguf", work, shape, weights, text))
    return folder / "model.gguf"


def _write_gguf(path: Path, work: Path, shape: str, weights: str, text: bool) -> None:
    import gguf

    kind, sizes, tensors = gguf.GGMLQuantizationType[weights], SHAPES[shape], _tensors(work, shape)
    width, read_per_step = sizes["n_embd"], 0
    writer = gguf.GGUFWriter(str(path), "gpt2")
    writer.add_context_length(sizes["block_size"])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(4 * width)
    writer.add_block_count(sizes["n_layer"])
    writer.add_head_count(sizes["n_heads"])
    writer.add_layer_norm_eps(1e-5)
    if text:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(vocabulary(shape))
        writer.add_token_merges(["a b"])
        writer.add_eos_token_id(sizes["vocab_size"] - 1)
    else:
        writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(sizes["vocab_size"])

    def add(name: str, values: np.ndarray[Any, Any]) -> None:
        writer.add_tensor(name, values.astype(np.float32))

    def add_matrix(name: str, values: np.ndarray[Any, Any]) -> int:
        data = values if weights == "F32" else gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        return int(data.nbytes)

    def add_norm(name: str, source: str) -> None:
        add(f"{name}.weight", tensors[f"{source}.weight"])
        add(f"{name}.bias", np.zeros(width))

    read_per_step += add_matrix("token_embd.weight", tensors["transformer.wte.weight"])
    add("position_embd.weight", tensors["transformer.wpe.weight"])
    for i in range(sizes["n_layer"]):
        block = f"transformer.h.{i}"
        add_norm(f"blk.{i}.attn_norm", f"{block}.ln_1")
        add_norm(f"blk.{i}.ffn_norm", f"{block}.ln_2")
        for ours, theirs in GPT2_BLOCK.items():
            matrix = tensors[f"{block}.{theirs}.weight"]
            read_per_step += add_matrix(f"blk.{i}.{ours}.weight", matrix)
            add(f"blk.{i}.{ours}.bias", np.zeros(len(matrix)))
    add_norm("output_norm", "transformer.ln_f")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    facts = {**sizes, "weights": weights, "weight_bytes_per_step": read_per_step}
    path.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")


def ctranslate2_model(work: Path, shape: str) -> Path:
    """Make a GPT-2 for CTranslate2, int8."""
    return _once(work / f"ctranslate2-{shape}-int8", lambda partial: _write_ctranslate2(partial, work, shape))


def _write_ctranslate2(folder: Path, work: Path, shape: str) -> None:
    import ctranslate2

    sizes, tensors = SHAPES[shape], _tensors(work, shape)
    specs = ctranslate2.specs
    spec = specs.TransformerDecoderModelSpec.from_config(
        sizes["n_layer"], sizes["n_heads"], pre_norm=True, activation=specs.Activation.GELU
    )

    def fill_norm(target: Any, source: str) -> None:
        target.gamma = tensors[f"{source}.weight"]
        target.beta = np.zeros_like(target.gamma)

    def fill_linear(target: Any, source: str) -> None:
        target.weight = tensors[f"{source}.weight"]
        target.bias = np.zeros(len(target.weight), np.float32)

    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = tensors["transformer.wte.weight"]
    decoder.position_encodings.encodings = tensors["transformer.wpe.weight"]
    decoder.projection.weight = tensors["transformer.wte.weight"]
    fill_norm(decoder.layer_norm, "transformer.ln_f")
    for i, layer in enumerate(decoder.layer):
        block = f"transformer.h.{i}"
        fill_norm(layer.self_attention.layer_norm, f"{block}.ln_1")
        fill_linear(layer.self_attention.linear[0], f"{block}.attn.c_attn")
        fill_linear(layer.self_attention.linear[1], f"{block}.attn.c_proj")
        fill_norm(layer.ffn.layer_norm, f"{block}.ln_2")
        fill_linear(layer.ffn.linear_0, f"{block}.mlp.c_fc")
        fill_linear(layer.ffn.linear_1, f"{block}.mlp.c_proj")
    tokens = [f"t{i}" for i in range(sizes["vocab_size"])]
    spec.register_vocabulary(tokens)
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = tokens[-1]
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(folder))
    (folder / "shape.json").write_text(json.dumps(sizes), encoding="utf-8")


def gpt2_folder(work: Path, shape: str, *, text: bool = False) -> Path:
    """Make a GPT-2 for transformers.

    Args:
        text: with a tokenizer, and a chat template that hands the messages over.
    """
    name = f"transformers-{shape}{'-text' if text else ''}"
    return _once(work / name, lambda partial: _write_gpt2(partial, work, shape, text))


def _write_gpt2(folder: Path, work: Path, shape: str, text: bool) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes, tensors = SHAPES[shape], _tensors(work, shape)
    config = GPT2Config(
        vocab_size=sizes["vocab_size"],
        n_positions=sizes["block_size"],
        n_embd=sizes["n_embd"],
        n_layer=sizes["n_layer"],
        n_head=sizes["n_heads"],
        activation_function="gelu",
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config)
    state = model.state_dict()
    for name, values in tensors.items():
        if name in state:
            transposed = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))  # GPT-2's Conv1D
            state[name].copy_(torch.from_numpy(values.T if transposed else values))
    model.save_pretrained(folder)
    if text:
        write_tokenizer(folder, shape)
        template = "{% for message in messages %}{{ message.content }}{% endfor %}"
        inputs = ["input_ids", "attention_mask"]  # GPT-2 would add embeddings of token_type_ids
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": template,
            "model_input_names": inputs,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def genai_model(work: Path, source: Path) -> Path:
    """Make onnxruntime-genai's folder around a graph of `onnxruntime_folder`. The weights are a hard link.

    genai does not give three inputs of the graph; they are computed from those that it gives: seqlens_k and
    total_sequence_length from attention_mask, as in its own graphs, and logits_index as the last position.
    """
    out = work / f"genai-{source.name}"
    if not out.is_dir() or out.stat().st_mtime < source.stat().st_mtime:
        with _made(out) as partial:
            _write_genai(partial, source)
    return out


def _write_genai(folder: Path, source: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    config = ModelConfig.load(source)
    shape = config.gptjx
    model = onnx.load(source / config.graph, load_external_data=False)
    graph = model.graph
    computed = ("seqlens_k", "total_sequence_length", "logits_index")
    for given in [given for given in graph.input if given.name in computed]:
        graph.input.remove(given)
    graph.input.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]))

    def constant(name: str, values: list[int]) -> None:
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))

    constant("one", [1])
    adapter = [
        helper.make_node("ReduceSum", ["attention_mask", "one"], ["lengths"], keepdims=0),
        helper.make_node("Sub", ["lengths", "one"], ["lengths_less_1"]),
        helper.make_node("Cast", ["lengths_less_1"], ["seqlens_k"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["total"], start=1),
        helper.make_node("Cast", ["total"], ["total_sequence_length"], to=TensorProto.INT32),
        helper.make_node("Shape", ["input_ids"], ["new"], start=1),
        helper.make_node("Sub", ["new", "one"], ["logits_index"]),
    ]
    for node in reversed(adapter):
        graph.node.insert(0, node)
    onnx.save(model, folder / "decoder.onnx")
    try:
        (folder / config.weights_file).hardlink_to(source / config.weights_file)
    except OSError:
        shutil.copyfile(source / config.weights_file, folder / config.weights_file)
    names = {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"}
    presents = {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}
    plain = {name: name for name in ("input_ids", "attention_mask", "position_ids")}
    decoder = {
        "session_options": {"provider_options": []},
        "filename": "decoder.onnx",
        "head_size": shape.head_dim,
        "hidden_size": shape.n_embd,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_heads,
        "num_hidden_layers": shape.n_layer,
        "inputs": {**plain, **names},
        "outputs": {"logits": "logits", **presents},
    }
    last = shape.vocab_size - 1
    settings = {
        "model": {
            "type": "llama",  # a decoder with such inputs; genai knows no GPTJX
            "vocab_size": shape.vocab_size,
            "context_length": shape.block_size,
            "bos_token_id": last,
            "eos_token_id": last,
            "pad_token_id": last,
            "decoder": decoder,
        },
        "search": {"past_present_share_buffer": True, "max_length": shape.block_size, "num_beams": 1},
    }
    (folder / "genai_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    facts = {
        "weights": config.dtype,
        "kv_cache_dtype": config.kv_cache_dtype,
        "vocab_size": shape.vocab_size,
        "weight_bytes_per_step": weight_bytes_per_step(source),
        "kv_bytes_per_position": config.kv_bytes_per_token,
    }
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
