"""decoder.onnx against a float64 NumPy model: shapes, dtypes, mixtures of rows, masks, wanted positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.export.models import SHAPES, Exported, FeedingLoop, export_tiny, open_graph

POSITIONS = 40
CAPACITY = 64

# Of weights and of the KV cache, in every combination that meets in the graph.
TYPES = [
    *((dtype, kv) for dtype in ("float32", "float16", "bfloat16", "int8") for kv in ("float32", "float16")),
    ("float32", "int8"),
]

# Largest logit error as a part of the logits' standard deviation, of weights as they are stored.
CACHE_BOUND = {
    "float32": 1e-5,  # rounding errors of 2^-24, grown about tenfold through the layers
    "float16": 2e-3,  # queries, keys, values and the attention's output, each rounded to 2^-12
    "int8": 6e-3,  # as float32, unless a key or value is nearly a tie and rounds the other way than the oracle's
}
INT8_BOUND = 0.1  # activations are rounded to 8 bits; test_quantized_weights.py looks closer


@pytest.fixture(scope="module", params=TYPES, ids=lambda types: f"{types[0]}-kv-{types[1]}")
def types(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def exported(
    request: pytest.FixtureRequest, types: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    return export_tiny(
        tmp_path_factory.mktemp("graph"), request.param, dtype=types[0], kv_cache_dtype=types[1]
    )


def tokens_for(exported: Exported, *shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(exported.shape["vocab_size"], size=shape)


def assert_close(exported: Exported, logits: np.ndarray, expected: np.ndarray) -> None:
    assert logits.shape == expected.shape
    error = np.abs(logits - expected).max() / expected.std()
    assert error < CACHE_BOUND[exported.report.kv_cache_dtype] + INT8_BOUND * (
        exported.report.dtype == "int8"
    )


@pytest.mark.parametrize(
    "chunks",
    [[POSITIONS], [1] * POSITIONS, [7, 1, 12, 20], [39, 1]],
    ids=["whole", "one-by-one", "uneven", "prefill-decode"],
)
def test_chunks_equal_the_full_forward(exported: Exported, chunks: list[int]) -> None:
    tokens = tokens_for(exported, POSITIONS)
    loop = FeedingLoop(exported, rows=1, capacity=CAPACITY)
    logits = [loop.feed(piece) for piece in np.split(tokens, np.cumsum(chunks)[:-1])]
    assert_close(exported, np.concatenate(logits), exported.oracle().logits(tokens))


def test_prompts_and_next_tokens_of_rows_share_runs(exported: Exported) -> None:
    """Rows join while others go on, in no order, with as many tokens as they like."""
    tokens = tokens_for(exported, 4, POSITIONS)
    loop = FeedingLoop(exported, rows=4, capacity=CAPACITY)
    lengths = dict.fromkeys(range(4), 0)
    for counts in ({2: 5, 0: 17}, {0: 1, 3: 2, 2: 1}, {1: 20, 0: 1, 2: 1, 3: 7}, {3: 1, 2: 1, 1: 1, 0: 1}):
        logits = loop.run({row: tokens[row, lengths[row] : lengths[row] + n] for row, n in counts.items()})
        for (row, count), found in zip(
            counts.items(), np.split(logits, np.cumsum([*counts.values()])[:-1]), strict=True
        ):
            lengths[row] += count
            expected = exported.oracle().logits(tokens[row, : lengths[row]])[-count:]
            assert_close(exported, found, expected)


def test_masks_stand_beside_causal_rows(exported: Exported) -> None:
    """Two prompts that see what their masks say, tokens ahead included, and one without a mask between them."""
    tokens = tokens_for(exported, 3, POSITIONS)
    counts = [9, 12, 20]
    rng = np.random.default_rng(11)
    masks = {}
    for row in (0, 2):
        masks[row] = np.where(
            rng.random((counts[row], counts[row])) < 0.5, -np.inf, rng.normal(size=counts[row])
        )
        np.fill_diagonal(masks[row], 0)
    loop = FeedingLoop(exported, rows=3, capacity=CAPACITY)
    logits = loop.run({row: tokens[row, :count] for row, count in enumerate(counts)}, masks=masks)
    for row, found in enumerate(np.split(logits, np.cumsum(counts)[:-1])):
        expected = exported.oracle().logits(tokens[row, : counts[row]], mask=masks.get(row))
        assert_close(exported, found, expected)


@pytest.mark.parametrize("wanted", [[], [9], [3, 0, 3]], ids=["none", "last", "any-order"])
def test_logits_of_the_wanted_positions_only(exported: Exported, wanted: list[int]) -> None:
    tokens = tokens_for(exported, 10)
    logits = FeedingLoop(exported, rows=1, capacity=16).feed(tokens, wanted=wanted)
    assert logits.shape == (len(wanted), exported.shape["vocab_size"])
    if wanted:
        assert_close(exported, logits, exported.oracle().logits(tokens)[wanted])


def test_a_chunk_without_logits_still_fills_the_cache(exported: Exported) -> None:
    tokens = tokens_for(exported, 10)
    loop = FeedingLoop(exported, rows=1, capacity=16)
    loop.feed(tokens[:6], wanted=[])
    assert_close(exported, loop.feed(tokens[6:]), exported.oracle().logits(tokens)[6:])


def test_capacity_may_equal_the_length(exported: Exported) -> None:
    tokens = tokens_for(exported, 16)
    loop = FeedingLoop(exported, rows=1, capacity=16)
    logits = np.concatenate([loop.feed(tokens[:15]), loop.feed(tokens[15:])])
    assert_close(exported, logits, exported.oracle().logits(tokens))


def test_inputs_and_outputs_are_the_contract(exported: Exported) -> None:
    session = open_graph(exported.folder / "decoder.onnx")
    shape = exported.shape
    cache_type = f"tensor({exported.report.kv_cache_dtype.replace('float32', 'float')})"
    heads, head_dim = shape["n_heads"], shape["n_embd"] // shape["n_heads"]
    past = {"key": ["rows", heads, "key_tiles", head_dim, 16], "value": ["rows", heads, "capacity", head_dim]}
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("input_ids", "tensor(int64)", ["tokens"]),
        ("position_ids", "tensor(int64)", ["tokens"]),
        ("segments", "tensor(int64)", ["segments", 5]),
        ("window", "tensor(int64)", [2]),
        ("attention_mask", "tensor(float)", ["mask_values"]),
        ("logits_index", "tensor(int64)", ["n"]),
        *(
            (f"past_key_values.{layer}.{name}", cache_type, dimensions)
            for layer in range(shape["n_layer"])
            for name, dimensions in past.items()
        ),
    ]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("logits", "tensor(float)", ["n", shape["vocab_size"]]),
        ("hidden_states", "tensor(float)", ["n", shape["n_embd"]]),
    ]
    assert session.get_modelmeta().custom_metadata_map == {
        "weights_hash": exported.report.weights_hash,
        "format_version": "4",
        "kv_cache_dtype": exported.report.kv_cache_dtype,
        "block_size": str(shape["block_size"]),
    }


def test_onnxruntime_has_nothing_to_warn_of(exported: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    """Its log goes to stderr, warnings and worse by default."""
    FeedingLoop(exported, rows=1, capacity=16).feed(tokens_for(exported, 5))
    assert capfd.readouterr() == ("", "")


def test_nodes_of_a_block(tmp_path: Path) -> None:
    """Six, whatever the weights are: every further node is time in each step."""
    for dtype in ("float32", "bfloat16", "int8", "int4"):
        exported = export_tiny(tmp_path / dtype, {"n_layer": 3}, dtype=dtype, verify=False)
        nodes = onnx.load(exported.folder / "decoder.onnx", load_external_data=False).graph.node
        assert sum(node.name.startswith("h.1.") for node in nodes) == 6
