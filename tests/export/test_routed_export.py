"""Exports of mixtures of experts: all that a device does with them, beside the oracle that computes every expert."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from sabiyarn_edge import EdgeGenerator, prefix_mask
from sabiyarn_edge.bench.traffic import weight_bytes_per_step
from sabiyarn_edge.errors import CheckpointError, ExportError, InvalidInputError, ModelFolderError
from sabiyarn_edge.export import export_model
from sabiyarn_edge.export.options import MOST_EXPERTS
from sabiyarn_edge.model_folder.config import ModelConfig
from tests.core.kernels.test_routed_mlp_operator import Mixture
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint
from tests.export.models import Exported, export_tiny
from tests.reference_gptjx import ReferenceGPTJX

SHAPE: dict[str, Any] = {"use_moe": True, "expert_per_layer": {"0": 3}, "n_embd": 32, "moe_dim": 48}
PROMPT = [5, 6, 7, 8, 9]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_tiny(tmp_path_factory.mktemp("routed"), SHAPE, kv_cache_dtype="float32", portable=True)


@pytest.fixture(scope="module")
def generator(exported: Exported):
    with EdgeGenerator.from_pretrained(exported.folder, num_threads=1) as generator:
        yield generator


def log_probs(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


# --- what a device does with them -----------------------------------------------------------------------------


def test_batches_streams_and_prompt_lookup(exported: Exported, generator: EdgeGenerator) -> None:
    oracle = exported.oracle()
    prompts = [PROMPT, [1], list(range(20))]
    expected = [oracle.greedy(prompt, 12) for prompt in prompts]
    found = generator.generate(prompts, max_new_tokens=12)
    assert [
        row[:length].tolist() for row, length in zip(found.sequences, found.lengths, strict=True)
    ] == expected
    streamed = [token.token_id for token in generator.stream(PROMPT, max_new_tokens=12)]
    assert PROMPT + streamed == expected[0]
    guessed = generator.generate(PROMPT, max_new_tokens=12, prompt_lookup_num_tokens=4)
    assert guessed.sequences[0].tolist() == expected[0]


def test_a_mask(exported: Exported, generator: EdgeGenerator) -> None:
    mask = np.where(np.asarray(prefix_mask(5), bool), 0.0, -np.inf).reshape(5, 5)
    first = int(exported.oracle().logits(PROMPT, mask=mask)[-1].argmax())
    found = generator.generate(PROMPT, max_new_tokens=1, attn_mask=prefix_mask(5))
    assert found.sequences[0, -1] == first


def test_beams(exported: Exported, generator: EdgeGenerator) -> None:
    """Every hypothesis of length 2 is scored here by the oracle; the best one is what 97 beams find."""
    oracle = exported.oracle()
    first = log_probs(oracle.logits(PROMPT)[-1])
    total = {
        (a, b): first[a] + score
        for a in np.argsort(-first)[:6].tolist()
        for b, score in enumerate(log_probs(oracle.logits([*PROMPT, a])[-1]))
    }
    best = max(total, key=lambda pair: total[pair])
    found = generator.generate(PROMPT, max_new_tokens=2, num_beams=6)
    assert tuple(found.sequences[0, -2:].tolist()) == best


def test_scores(exported: Exported, generator: EdgeGenerator) -> None:
    [score] = generator.score([PROMPT])
    expected = log_probs(exported.oracle().logits(PROMPT))[np.arange(4), PROMPT[1:]]
    np.testing.assert_allclose(score.log_probs, expected, atol=1e-4)  # float32 logits near 10


def test_embeddings(exported: Exported, generator: EdgeGenerator) -> None:
    """Hidden states times wte are the logits."""
    vector = generator.embed(PROMPT, pooling="last")
    wte = exported.tensors["transformer.wte.weight"]
    np.testing.assert_allclose(wte @ vector, exported.oracle().logits(PROMPT)[-1], atol=1e-3)


def test_a_session(exported: Exported, generator: EdgeGenerator, tmp_path: Path) -> None:
    session = generator.session(PROMPT)
    session.generate([], max_new_tokens=4)
    session.save(tmp_path / "session")
    again = generator.load_session(tmp_path / "session")
    again.generate([], max_new_tokens=5)
    assert again.tokens == exported.oracle().greedy(PROMPT, 9)


def test_logits_do_not_depend_on_what_else_runs(tmp_path: Path) -> None:
    """Bit for bit, in 8 bits, where tokens of several prompts share an expert's products."""
    exported = export_tiny(tmp_path, SHAPE, dtype="int8", verify=False)
    with EdgeGenerator.from_pretrained(exported.folder, num_threads=2) as generator:
        texts = [np.random.default_rng(i).integers(97, size=7 + i).tolist() for i in range(6)]
        together = generator.score(texts)
        for text, score in zip(texts, together, strict=True):
            [alone] = generator.score([text])
            np.testing.assert_array_equal(alone.log_probs, score.log_probs)


def test_portable_greedy_tokens(exported: Exported) -> None:
    """Under onnxruntime that knows standard operators only, a token at a time behind the prompt."""
    session = onnxruntime.InferenceSession(
        exported.folder / "portable" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    empty = np.zeros((1, 2, 0, 16), np.float32)
    past = {f"past_key_values.{i}.{part}": empty for i in range(2) for part in ("key", "value")}
    tokens, new = list(PROMPT), np.array([PROMPT])
    for _ in range(12):
        total, count = len(tokens), new.shape[1]
        mask = np.triu(np.full((total, total), -np.inf, np.float32), k=1)[-count:]
        feeds = {
            "input_ids": new,
            "position_ids": np.arange(total - count, total)[None],
            "attention_mask": mask[None, None],
        }
        logits, *present = session.run(None, {**feeds, **past})
        past = dict(zip(past, present, strict=True))
        new = logits[:, -1:].argmax(axis=-1)
        tokens.append(int(new[0, 0]))
    assert tokens == exported.oracle().greedy(PROMPT, 12)


# --- what is stored -------------------------------------------------------------------------------------------


def test_removed_experts(tmp_path: Path) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint", **SHAPE)
    whole = export_tiny(tmp_path / "whole", SHAPE, verify=False)
    kept = {0: [2, 0], 1: [0, 1, 3]}
    file = tmp_path / "kept.json"
    file.write_text(json.dumps({"0": [2, 0], "*": [0, 1, 3]}))
    for experts, out in (("0:2,0;*:0,1,3", tmp_path / "text"), (str(file), tmp_path / "file")):
        report = export_model(
            source, out, dtype="float32", kv_cache_dtype="float32", experts=experts, progress=False
        )
        assert report.parameters == whole.report.parameters - 2 * (32 + 2 * 32 * 48)
        assert ModelConfig.load(out).gptjx.expert_per_layer == {"0": 2, "1": 3}
    tensors = dict(whole.tensors)
    for layer, experts in kept.items():
        for name in ("gate.weight", "fc_bank", "proj_bank"):
            tensors[f"transformer.h.{layer}.mlp.{name}"] = tensors[f"transformer.h.{layer}.mlp.{name}"][
                experts
            ]
    expected = ReferenceGPTJX(tensors, n_layer=2, n_heads=2).greedy(PROMPT, 12)
    for out in (tmp_path / "text", tmp_path / "file"):
        with EdgeGenerator.from_pretrained(out, num_threads=1) as generator:
            assert generator.generate(PROMPT, max_new_tokens=12).sequences[0].tolist() == expected


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        (SHAPE, {"experts": "0:0"}, InvalidInputError, "layer 0 is to keep 1 of its 3 experts"),
        ({}, {"experts": "0:0"}, InvalidInputError, "this model has none: use_moe is false"),
        (
            {**SHAPE, "moe_dim": 44},
            {"dtype": "float32"},
            ExportError,
            "moe_dim is 44, and the operator RoutedMlp",
        ),
        (
            {**SHAPE, "moe_dim": 16, "expert_per_layer": {"1": MOST_EXPERTS + 1}},
            {"verify": False},
            ExportError,
            "layer 1 has 1025 experts, and the operator RoutedMlp takes at most 1024. Name those that stay with --exp",
        ),
        ({**SHAPE, "moe_dim": 40}, {}, ExportError, "moe_dim is 40, but int8 needs a multiple of 16"),
        (
            {**SHAPE, "moe_dim": 48},
            {"weight_block_size": 32},
            ExportError,
            "moe_dim is 48, which is not a multiple of",
        ),
        (
            SHAPE,
            {"tokenizer": "nowhere"},
            CheckpointError,
            "the tokenizer nowhere is neither a folder nor a hub id",
        ),
        (SHAPE, {"tokenizer": "."}, CheckpointError, "holds no tokenizer.json"),
    ],
)
def test_what_cannot_be_exported(
    tmp_path: Path,
    shape: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    source = make_tiny_checkpoint(tmp_path / "checkpoint", **shape)
    with pytest.raises(error, match=message):
        export_model(source, tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()


def test_the_operator_takes_as_many_experts_as_an_export_allows() -> None:
    mixture = Mixture("float32", "float32")
    mixture.open(experts=MOST_EXPERTS)  # weights are held against the attributes when it runs
    with pytest.raises(Exception, match=f"experts is {MOST_EXPERTS + 1}; it must be 1 to {MOST_EXPERTS}"):
        mixture.open(experts=MOST_EXPERTS + 1)


def test_an_export_keeps_some_of_too_many_experts(tmp_path: Path) -> None:
    shape = {**SHAPE, "moe_dim": 16, "expert_per_layer": {"1": MOST_EXPERTS + 1}}
    source = make_tiny_checkpoint(tmp_path / "checkpoint", **shape)
    export_model(source, tmp_path / "out", experts=f"1:0,{MOST_EXPERTS}", verify=False, progress=False)
    with EdgeGenerator.from_pretrained(tmp_path / "out", num_threads=1) as generator:
        assert len(generator.generate(PROMPT, max_new_tokens=3).sequences[0]) == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_experts_per_tok": 1}, "num_experts_per_tok is 1 there and 2 in layer 0 of the graph"),
        ({"num_experts": 5}, "the number of experts in layer 1 is 5 there and 4 in the graph"),
        ({"expert_per_layer": {"0": 2}}, "the number of experts in layer 0 is 2 there and 3 in the graph"),
        ({"moe_dim": 56}, "moe_dim is 56 there and 48 in layer 0 of the graph"),
        ({"moe_dim": None}, "moe_dim is 128 there and 48 in layer 0 of the graph"),
        ({"use_moe": False}, "the number of experts in layer 0 is 0 there and 3 in the graph"),
    ],
)
def test_a_config_that_disagrees_with_the_experts_of_the_graph_is_refused(
    exported: Exported, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    with pytest.raises(ModelFolderError, match=rf"config\.json disagrees with decoder\.onnx: {message}"):
        EdgeGenerator.from_pretrained(folder, num_threads=1)


def test_a_config_that_makes_a_mixture_of_a_dense_graph_is_refused(tmp_path: Path) -> None:
    folder = export_tiny(tmp_path, verify=False).folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "use_moe": True}))
    with pytest.raises(
        ModelFolderError, match="the number of experts in layer 0 is 4 there and 0 in the graph"
    ):
        EdgeGenerator.from_pretrained(folder, num_threads=1)


def test_bfloat16_is_kept(tmp_path: Path) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint", traps=["bfloat16"], **SHAPE)
    report = export_model(source, tmp_path / "out", dtype="keep", progress=False)
    assert report.dtype == "bfloat16"
    assert {error.largest_error for error in report.weights.values()} == {0.0}


def test_experts_with_too_few_calibration_tokens_are_named(tmp_path: Path) -> None:
    """A router that sends all tokens to the first two experts of each layer: of equal scores, the lower indices."""
    from safetensors.torch import load_file, save_file

    source = make_tiny_checkpoint(tmp_path / "checkpoint", **SHAPE)
    tensors = load_file(source / "model.safetensors")
    tensors["transformer.h.1.mlp.gate.weight"].zero_()
    save_file(tensors, source / "model.safetensors")
    report = export_model(source, tmp_path / "out", dtype="int4", keep_int8=["first"], progress=False)
    [note] = [note for note in report.notes if "too few tokens" in note]
    for expert in range(4):
        for bank in ("fc_bank", "proj_bank"):
            assert (f"transformer.h.1.mlp.{bank}.{expert} (0)" in note) == (expert >= 2)


CHILD = """
import json, sys
from pathlib import Path
from sabiyarn_edge.engine.decoder import Decoder

decoder = Decoder(Path(sys.argv[1]), num_threads=1)
decoder.kv_cache.resize(1)
decoder.runner.run([(0, [5] * 40, 1, None)])
decoder.runner.run([(0, [6], 1, None)])
resident, inside = 0, False
for line in Path("/proc/self/smaps").read_text().splitlines():
    name, _, rest = line.partition(":")
    if " " in name:  # the head of a mapping: addresses, permissions, file
        inside = line.endswith("/weights.bin")
    elif inside and name == "Rss":
        resident += 1024 * int(rest.split()[0])
print(resident)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_pages_of_experts_that_are_never_chosen_are_never_read(tmp_path: Path) -> None:
    """All tokens go to the first 2 of 8 experts, whose banks are 32 of the file's 33 MiB."""
    from safetensors.torch import load_file, save_file

    shape = {
        "use_moe": True,
        "num_experts": 8,
        "n_layer": 1,
        "n_embd": 256,
        "moe_dim": 2048,
        "vocab_size": 1009,
    }
    source = make_tiny_checkpoint(tmp_path / "checkpoint", **shape)
    tensors = load_file(source / "model.safetensors")
    tensors["transformer.h.0.mlp.gate.weight"].zero_()
    save_file(tensors, source / "model.safetensors")
    export_model(source, tmp_path / "out", dtype="float32", verify=False, progress=False)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "out")]
    resident = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    bank = 2 * 4 * 256 * 2048  # of two experts
    rest = 4 * (4 * 256 * 256 + 1016 * 256)  # what every token reads; tiles have eight rows of wte
    assert weight_bytes_per_step(tmp_path / "out") == 2 * bank + rest
    # Behind the end of what is read of each bank, the kernel may map what its cache holds as one piece: up to 2 MiB.
    assert 2 * bank < resident <= 2 * bank + rest + 4 * 64 * 256 + 4 * 2**21
