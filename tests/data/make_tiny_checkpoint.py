"""Make tiny random GPTJX and GPTJXMoE checkpoints, with every oddity that real ones have.

    python tests/data/make_tiny_checkpoint.py OUT [--layout sharded] [--trap compiled-prefix] [--num-experts 4] ...

Tensors come from a seeded NumPy generator, not from the package's own model, so that a test that loads them
also checks names and shapes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # shapes and tensors are of use where torch is not installed
    import torch

LAYOUTS = ("safetensors", "sharded", "bin", "sharded-bin")

TRAPS = {
    "mask-buffers": "h.*.attn.bias and h.*.bias hold causal masks of shape (1, 1, n, n)",
    "compiled-prefix": "every name begins with _orig_mod. (saved from torch.compile)",
    "no-transformer-prefix": "names lack transformer.",
    "no-lm-head": "lm_head.weight is absent",
    "only-lm-head": "transformer.wte.weight is absent, lm_head.weight stands for both",
    "half": "tensors are float16",
    "bfloat16": "tensors are bfloat16",
}

SHAPE: dict[str, Any] = {
    "block_size": 64,
    "vocab_size": 97,
    "n_layer": 2,
    "n_heads": 2,
    "n_embd": 16,
    "bias": False,
}

EXPERTS: dict[str, Any] = {
    "use_moe": False,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_dim": None,
    "expert_per_layer": None,
}
"""Keys of a mixture of experts, and what they are unless a shape names them."""


def experts_of(shape: dict[str, Any], layer: int) -> int:
    """Experts of a layer; 0 where it is dense."""
    if not shape.get("use_moe"):
        return 0
    return (shape.get("expert_per_layer") or {}).get(
        str(layer), shape.get("num_experts", EXPERTS["num_experts"])
    )


def random_tensors(*, seed: int = 0, j_bias: bool = True, **shape: Any) -> dict[str, NDArray[np.float32]]:
    """All tensors of a random GPTJX by their full names.

    Scales are such that greedy decoding neither repeats one token nor forgets the prompt.

    Args:
        seed: of the generator.
        j_bias: whether the layer norm j has a bias even when `bias` is False, as released checkpoints do.
        shape: block_size, vocab_size, n_layer, n_heads, n_embd, bias; defaults in SHAPE. And the keys of EXPERTS.
    """
    shape = {**SHAPE, **shape}
    rng = np.random.default_rng(seed)
    width, bias = shape["n_embd"], shape["bias"]
    tensors: dict[str, NDArray[np.float32]] = {}

    def add(name: str, *dims: int, scale: float, center: float = 0.0) -> None:
        tensors[name] = (center + scale * rng.standard_normal(dims)).astype(np.float32)

    def add_norm(name: str, *, with_bias: bool, center: float = 1.0) -> None:
        add(f"{name}.weight", width, scale=0.1, center=center)
        if with_bias:
            add(f"{name}.bias", width, scale=0.2)

    def add_linear(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.weight", outputs, inputs, scale=1.0 / inputs**0.5)
        if bias:
            add(f"{name}.bias", outputs, scale=0.2)

    add("transformer.wte.weight", shape["vocab_size"], width, scale=0.2)
    add("transformer.wpe.weight", shape["block_size"], width, scale=0.5)
    for layer in range(shape["n_layer"]):
        block = f"transformer.h.{layer}"
        add_norm(f"{block}.ln_1", with_bias=bias)
        add_norm(f"{block}.j", with_bias=bias or j_bias)
        add_norm(f"{block}.ln_2", with_bias=bias)
        add_linear(f"{block}.attn.c_attn", width, 3 * width)
        add_linear(f"{block}.attn.c_proj", width, width)
        experts = experts_of(shape, layer)
        hidden = (shape.get("moe_dim") if experts else None) or 4 * width
        if experts:
            add(f"{block}.mlp.gate.weight", experts, width, scale=0.5)
            add(f"{block}.mlp.fc_bank", experts, width, hidden, scale=1.0 / width**0.5)
            add(f"{block}.mlp.proj_bank", experts, hidden, width, scale=1.0 / hidden**0.5)
        else:
            add_linear(f"{block}.mlp.c_fc", width, hidden)
            add_linear(f"{block}.mlp.c_proj", hidden, width)
    add_norm("transformer.ln_f", with_bias=bias, center=3.0)
    return tensors


def tensor_shape(shape: dict[str, Any]) -> dict[str, Any]:
    """Those keys that say which tensors there are."""
    return {key: value for key, value in shape.items() if key in SHAPE or key in EXPERTS}


def config_dict(**shape: Any) -> dict[str, Any]:
    """config.json as the authors of SabiYarn write it."""
    routed: dict[str, Any] = {}
    if shape.get("use_moe"):
        routed = {
            "architectures": ["GPTJXMoEForCausalLM"],
            "auto_map": {"AutoModelForCausalLM": "modeling.GPTJXMoEForCausalLM"},
            "model_type": "sabiyarn",
            "tie_word_embeddings": True,
            **EXPERTS,
        }
    return {
        "architectures": ["GPTJXForCausalLM"],
        "model_type": "gptjx",
        "torch_dtype": "float32",
        "dropout": 0.0,
        "use_kv_cache": True,
        "max_batch_size": 1,
        "kv_cache_dtype": "float32",
        **SHAPE,
        **routed,
        **shape,
    }


def make_tiny_checkpoint(
    folder: str | Path,
    *,
    layout: str = "safetensors",
    traps: Collection[str] = (),
    seed: int = 0,
    j_bias: bool = True,
    **shape: Any,
) -> Path:
    """Write a tiny random checkpoint folder and return it.

    Args:
        folder: made when it does not exist.
        layout: one of LAYOUTS.
        traps: any of TRAPS.
        seed, j_bias, shape: as in random_tensors(); `shape` may also hold other keys of config.json.
    """
    import torch
    from safetensors.torch import save_file

    unknown = set(traps) - set(TRAPS)
    if layout not in LAYOUTS or unknown:
        raise ValueError(
            f"layout must be one of {LAYOUTS} and traps of {tuple(TRAPS)}; got {layout}, {unknown}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = random_tensors(seed=seed, j_bias=j_bias, **tensor_shape(shape))
    tensors = _spring_traps({name: torch.from_numpy(array) for name, array in arrays.items()}, traps)
    (folder / "config.json").write_text(json.dumps(config_dict(**shape), indent=2) + "\n", encoding="utf-8")
    if layout == "safetensors":
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    elif layout == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        _save_shards(tensors, folder, layout)
    return folder


def _spring_traps(tensors: dict[str, torch.Tensor], traps: Collection[str]) -> dict[str, torch.Tensor]:
    import torch

    wte = tensors["transformer.wte.weight"]
    if "no-lm-head" not in traps:
        tensors["lm_head.weight"] = wte.clone()
    if "only-lm-head" in traps:
        del tensors["transformer.wte.weight"]
    if "half" in traps:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    if "bfloat16" in traps:
        tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    if "mask-buffers" in traps:
        layers = {name.split(".")[2] for name in tensors if name.startswith("transformer.h.")}
        for layer in sorted(layers):
            mask = torch.ones(1, 1, 8, 8).tril()
            tensors[f"transformer.h.{layer}.attn.bias"] = mask
            tensors[f"transformer.h.{layer}.bias"] = mask.bool()
    if "no-transformer-prefix" in traps:
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    if "compiled-prefix" in traps:
        tensors = {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _save_shards(tensors: dict[str, torch.Tensor], folder: Path, layout: str) -> None:
    """Three files and an index, in Hugging Face's naming."""
    import torch
    from safetensors.torch import save_file

    names = list(tensors)
    stem, ending = ("model", "safetensors") if layout == "sharded" else ("pytorch_model", "bin")
    weight_map: dict[str, str] = {}
    for part in range(3):
        file = f"{stem}-{part + 1:05d}-of-00003.{ending}"
        shard = {name: tensors[name] for name in names[part::3]}
        weight_map.update(dict.fromkeys(shard, file))
        if ending == "safetensors":
            save_file(shard, folder / file, metadata={"format": "pt"})
        else:
            torch.save(shard, folder / file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--layout", choices=LAYOUTS, default="safetensors")
    parser.add_argument("--trap", choices=tuple(TRAPS), action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-j-bias", action="store_true", help="without bias in the layer norm j")
    parser.add_argument("--bias", action="store_true", help="bias in all linear layers and layer norms")
    for name in ("block_size", "vocab_size", "n_layer", "n_heads", "n_embd"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=SHAPE[name])
    parser.add_argument("--num-experts", type=int, help="of each layer's mixture (default: dense layers)")
    parser.add_argument("--num-experts-per-tok", type=int, default=EXPERTS["num_experts_per_tok"])
    parser.add_argument("--moe-dim", type=int, help="width of an expert (default: 4 * n_embd)")
    options = vars(parser.parse_args())
    if options["num_experts"] is None:
        for name in ("num_experts", "num_experts_per_tok", "moe_dim"):
            del options[name]
    else:
        options["use_moe"] = True
    out, traps, no_j_bias = options.pop("out"), options.pop("trap"), options.pop("no_j_bias")
    print(make_tiny_checkpoint(out, traps=traps, j_bias=not no_j_bias, **options))


if __name__ == "__main__":
    main()
