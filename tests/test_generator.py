"""EdgeGenerator as its users call it, on a tiny model with a tokenizer."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from sabiyarn_edge import EdgeGenerator, GenerationConfig
from sabiyarn_edge.errors import InvalidInputError, ModelFolderError, NumericalError
from tests.export.models import accept_graphs, export_tiny

PROMPT = "Gbogbo ènìyàn"


@pytest.fixture(scope="module")
def generator(text_model: Path) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(text_model, num_threads=1)


@pytest.fixture(scope="module")
def library_tokenizer(text_model: Path) -> tokenizers.Tokenizer:
    """The tokenizers library itself, for comparison with our wrapper."""
    return tokenizers.Tokenizer.from_file(str(text_model / "tokenizer.json"))


@pytest.fixture
def model_copy(text_model: Path, tmp_path: Path) -> Path:
    """A copy of the model folder that a test may damage."""
    return Path(shutil.copytree(text_model, tmp_path / "model"))


# --- inputs and results


def test_every_kind_of_prompt_gives_the_same(
    generator: EdgeGenerator, library_tokenizer: tokenizers.Tokenizer
) -> None:
    ids = library_tokenizer.encode(PROMPT).ids
    one = generator.generate(PROMPT, max_new_tokens=6)
    for inputs in (ids, tuple(ids), np.array(ids), np.array(ids, np.int32), [PROMPT], [ids], np.array([ids])):
        np.testing.assert_array_equal(generator.generate(inputs, max_new_tokens=6).sequences, one.sequences)
    assert one.sequences.dtype == np.int64
    assert one.sequences[0, : len(ids)].tolist() == ids
    assert one.text == library_tokenizer.decode(one.sequences[0, len(ids) :].tolist())


def test_greedy_text_is_torchs(generator: EdgeGenerator, text_model: Path) -> None:
    pytest.importorskip("torch")
    from sabiyarn_edge.modeling import GPTJXForCausalLM

    model = GPTJXForCausalLM.from_pretrained(text_model.parent / "checkpoint")
    ids = generator.tokenizer.encode(PROMPT)
    expected = model.generate([ids], max_new_tokens=20, use_cache=False)[0].tolist()
    assert generator.generate(PROMPT, max_new_tokens=20).sequences[0].tolist() == expected


def test_rows_of_unequal_length_are_padded_on_the_right(generator: EdgeGenerator) -> None:
    prompts = [[1, 2, 3, 4, 5], [7]]
    alone = [generator.generate(ids, max_new_tokens=12).generated[0] for ids in prompts]
    end = alone[0][3]  # the first row ends here if this is an end token
    options = {"max_new_tokens": 12, "eos_token_id": end}
    expected = [
        prompt + ids[: ids.index(end) + 1 if end in ids else None]
        for prompt, ids in zip(prompts, alone, strict=True)
    ]
    result = generator.generate(prompts, pad_token_id=0, **options)
    assert [ids[:n] for ids, n in zip(result.sequences.tolist(), result.lengths, strict=True)] == expected
    assert result.prompt_lengths == [5, 1]
    assert result.finish_reasons == ["eos" if ids[-1] == end else "length" for ids in expected]
    longest = max(map(len, expected))
    assert result.sequences.tolist() == [ids + [0] * (longest - len(ids)) for ids in expected]
    padded_with_end = generator.generate(prompts, **options).sequences.tolist()
    assert padded_with_end == [ids + [end] * (longest - len(ids)) for ids in expected]


def test_timings_count_what_was_done(generator: EdgeGenerator) -> None:
    timings = generator.generate([[1, 2, 3], [4]], max_new_tokens=5).timings
    assert (timings.prefill_tokens, timings.decode_tokens) == (4, 8)
    assert 0 < timings.prefill_seconds < timings.time_to_first_token
    assert timings.prefill_tokens_per_second == 4 / timings.prefill_seconds
    assert timings.decode_tokens_per_second == 8 / timings.decode_seconds


def test_seeds_reproduce_and_differ(generator: EdgeGenerator) -> None:
    def draw(**options: Any) -> list[int]:
        sampled = generator.generate(PROMPT, max_new_tokens=12, do_sample=True, temperature=3.0, **options)
        return sampled.sequences[0].tolist()

    assert draw(seed=5) == draw(seed=5)
    assert draw(seed=5) != draw(seed=6)
    assert draw() != draw()  # no seed: another one each time


def test_a_folder_without_tokenizer_works_with_ids(model_copy: Path) -> None:
    (model_copy / "tokenizer.json").unlink()
    generator = EdgeGenerator.from_pretrained(model_copy)
    result = generator.generate([1, 2], max_new_tokens=3)
    assert result.texts is result.text is None
    assert [token.text for token in generator.stream([1, 2], max_new_tokens=3)] == ["", "", ""]
    with pytest.raises(InvalidInputError, match=r"the model folder has no tokenizer\.json\. Give token ids"):
        generator.generate("text")


def test_defaults_come_from_the_folder_and_calls_override_them(model_copy: Path) -> None:
    config = GenerationConfig(max_new_tokens=3, eos_token_id=None)
    config.save(model_copy)
    generator = EdgeGenerator.from_pretrained(model_copy)
    assert generator.generate([1]).lengths == [4]
    assert generator.generate([1], max_new_tokens=5).lengths == [6]
    assert generator.generate([1], config.updated(max_new_tokens=2)).lengths == [3]


def test_max_length_bounds_the_positions(text_model: Path) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, max_length=10)
    assert generator.generate([1, 2]).lengths == [10]  # nothing asked for: up to the limit
    with pytest.raises(
        InvalidInputError, match=r"2 tokens and max_new_tokens is 9: 11 positions, .* is 10\."
    ):
        generator.generate([1, 2], max_new_tokens=9)
    for wrong in (-3, 0, 1, 10**6):
        with pytest.raises(
            InvalidInputError,
            match=rf"max_length is {wrong}[;,] .*must be (an integer of at least|between) 2",
        ):
            EdgeGenerator.from_pretrained(text_model, max_length=wrong)


# --- streams


def test_a_stream_gives_what_generate_gives(generator: EdgeGenerator) -> None:
    result = generator.generate(PROMPT, max_new_tokens=30)
    stream = generator.stream(PROMPT, max_new_tokens=30)
    tokens = list(stream)
    assert "".join(token.text for token in tokens) == result.text
    assert [token.token_id for token in tokens] == result.generated[0]
    assert [token.index for token in tokens] == list(range(30))
    assert [token.finish_reason for token in tokens] == [""] * 29 + ["length"]
    assert stream.result is not None
    np.testing.assert_array_equal(stream.result.sequences, result.sequences)


def test_a_stream_that_is_closed_early_has_no_result(generator: EdgeGenerator) -> None:
    with generator.stream(PROMPT, max_new_tokens=9) as stream:
        next(stream)
    assert stream.result is None
    assert list(stream) == []
    assert generator.generate(PROMPT, max_new_tokens=1).finish_reasons == ["length"]


def test_a_stream_takes_one_row(generator: EdgeGenerator) -> None:
    with pytest.raises(InvalidInputError, match="there are 2 prompts and num_return_sequences is 1"):
        next(generator.stream([[1], [2]]))
    with pytest.raises(InvalidInputError, match="there are 1 prompts and num_return_sequences is 3"):
        next(generator.stream([1], do_sample=True, num_return_sequences=3))


# --- what can go wrong, and what is left then


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("", {}, "the prompt is empty. Give at least one token"),
        ([], {}, "the list of prompts is empty"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([1, 320], {}, "token id 320 at index 1; ids of this model are 0 to 319"),
        ([-1], {}, "token id -1 at index 0"),
        ([0.5], {}, "values that are not integers (float64)"),
        (None, {}, "the prompt is a NoneType"),
        (b"x", {}, "the prompt is a bytes"),
        ([[1], 2.5], {}, "prompt 1 is a float"),
        ([1] * 96, {}, "the prompt has 96 tokens; with at most 96 positions that leaves no room"),
        ([1] * 90, {"max_new_tokens": 7}, "ask for at most 6 new tokens"),
        ([1] * 50, {"max_length": 50}, "max_length, which counts them, is 50: no new token fits"),
        ([1], {"max_length": 97}, "max_length is 97, but the limit"),
        ([1], {"temprature": 1}, "did you mean temperature?"),
        ([1], {"do_sample": True, "temperature": 0}, "temperature is 0"),
        ([1], {"do_sample": True, "temperature": -1.0}, "temperature is -1.0"),
        ([1], {"do_sample": True, "top_p": 0}, "top_p is 0"),
        ([1], {"do_sample": True, "top_p": 1.5}, "top_p is 1.5"),
        ([1], {"do_sample": True, "top_k": -1}, "top_k is -1"),
        ([[1], [2]], {"do_sample": True, "seed": [1]}, "seed holds 1 seeds for 2 prompts"),
        ([1], {"logits_processor": 3}, "logits_processor holds a int, which cannot be called"),
    ],
)
def test_bad_input_is_refused_and_the_generator_stays(
    generator: EdgeGenerator, inputs: Any, options: dict[str, Any], message: str
) -> None:
    before = generator.generate([3, 4], max_new_tokens=4).sequences
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        generator.generate(inputs, **options)
    np.testing.assert_array_equal(generator.generate([3, 4], max_new_tokens=4).sequences, before)


def test_more_rows_than_max_batch_size_are_refused(text_model: Path) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, max_batch_size=2)
    generator.generate([[1], [2]], max_new_tokens=1)
    with pytest.raises(
        InvalidInputError, match="2 prompts with 2 rows each are 4 rows, but max_batch_size is 2"
    ):
        generator.generate([[1], [2]], do_sample=True, num_return_sequences=2)


def test_prompt_and_output_may_be_longer_than_the_window(text_model: Path) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, kv_window=16)
    assert generator.generate([1] * 17, max_new_tokens=40).lengths == [57]
    assert generator.memory_usage()["kv_cache"] == 64 * generator.memory_usage()["kv_bytes_per_position"]


def test_ctrl_c_leaves_the_generator_usable(generator: EdgeGenerator) -> None:
    expected = generator.generate([3, 4], max_new_tokens=8).sequences
    seen = []

    def interrupt(ids: np.ndarray, scores: None) -> bool:
        seen.append(ids.shape[1])
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        elif len(seen) > 5:
            time.sleep(0.01)  # so that the waiting thread has its turn
        return False

    with pytest.raises(KeyboardInterrupt):
        generator.generate([1, 2], max_new_tokens=90, stopping_criteria=interrupt)
    steps = len(seen)
    assert steps < 50  # the engine dropped the call
    np.testing.assert_array_equal(generator.generate([3, 4], max_new_tokens=8).sequences, expected)
    assert len(seen) == steps


def test_logits_that_are_nan_are_an_error(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    exported = export_tiny(tmp_path, {"block_size": 32}, verify=False)
    poison_position(exported.folder, position=6)
    generator = EdgeGenerator.from_pretrained(exported.folder)
    with pytest.raises(NumericalError, match="NaN"):
        generator.generate([[1, 2], [1, 2, 3, 4]], max_new_tokens=20)
    assert generator.generate([1, 2], max_new_tokens=3).lengths == [5]


def poison_position(folder: Path, position: int) -> None:
    """Make one row of the exported position table NaN, wherever the table is stored."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(folder / "decoder.onnx")  # with the tensors of weights.bin
    (table,) = (t for t in graph.graph.initializer if t.name.endswith("wpe.weight"))
    tiles = numpy_helper.to_array(table).copy()  # uint8 [tiles, bytes]: [width][8 rows] float32
    tiles[position // 8].view(np.float32).reshape(-1, 8)[:, position % 8] = np.nan
    table.CopyFrom(numpy_helper.from_array(tiles, table.name))
    onnx.save(graph, folder / "decoder.onnx")
    accept_graphs(folder)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (
            lambda ids, scores: scores[:, :-1],
            r"logits_processor 0 \(<lambda>\) gave float32 of shape \(1, 319\)",
        ),
        (lambda ids, scores: scores.astype(np.int32), "gave int32 of shape"),
        (lambda ids, scores: scores * np.nan, "gave NaN for row 0, token 0"),
    ],
)
def test_processors_that_return_nonsense_are_named(
    generator: EdgeGenerator, processor: Callable[..., Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        generator.generate([1, 2], logits_processor=processor)


@pytest.mark.parametrize("options", [{"do_sample": True}, {"num_beams": 2}])
def test_a_processor_that_gives_infinity_is_named_where_probabilities_are_needed(
    generator: EdgeGenerator, options: dict[str, Any]
) -> None:
    def force(ids: Any, scores: np.ndarray) -> np.ndarray:
        scores[:, 7] = np.inf
        return scores

    assert generator.generate([1, 2], logits_processor=force, max_new_tokens=2).generated == [[7, 7]]
    with pytest.raises(
        InvalidInputError, match=r"logits_processor 0 \(force\) gave infinity for row 0, token 7"
    ):
        generator.generate([1, 2], logits_processor=force, max_new_tokens=2, **options)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("x", "'x'"),
        (None, "None"),  # a function without return
        (1, "1"),
        (0.0, "0.0"),
        ([], r"float64 of shape \(0,\)"),
        (np.array([1]), "1"),
        (np.array([True, False]), r"bool of shape \(2,\)"),
        (np.array([[True]]), "True"),
    ],
)
def test_criteria_that_return_nonsense_are_named(generator: EdgeGenerator, answer: Any, shown: str) -> None:
    message = rf"stopping_criteria 1 \(<lambda>\) gave {shown} for row 0; it must give True or False"
    criteria = [lambda ids, scores: False, lambda ids, scores: answer]
    with pytest.raises(InvalidInputError, match=message):
        generator.generate([1, 2], max_new_tokens=3, stopping_criteria=criteria)


@pytest.mark.parametrize("kind", ["bool", "numpy", "array", "list", "tensor", "tensor-scalar"])
def test_criteria_may_answer_as_those_of_transformers(generator: EdgeGenerator, kind: str) -> None:
    torch = pytest.importorskip("torch") if kind.startswith("tensor") else None
    as_kind: dict[str, Callable[[bool], Any]] = {
        "bool": bool,
        "numpy": np.bool_,
        "array": lambda stop: np.array([stop]),
        "list": lambda stop: [stop],
        "tensor": lambda stop: torch.tensor([stop]),
        "tensor-scalar": lambda stop: torch.tensor(stop),
    }
    for stops, length in ((lambda ids: ids.shape[1] == 4, 4), (lambda ids: False, 6)):
        found = generator.generate(
            [1, 2], max_new_tokens=4, stopping_criteria=lambda ids, scores, f=stops: as_kind[kind](f(ids))
        )
        assert found.lengths == [length]


@pytest.mark.parametrize("answer", [[True, False], np.ones(320, bool)])
def test_a_mask_is_no_list_of_allowed_ids(generator: EdgeGenerator, answer: Any) -> None:
    """True would be id 1."""
    with pytest.raises(InvalidInputError, match="for row 0; it must give a list of ids"):
        generator.generate([1], max_new_tokens=2, prefix_allowed_tokens_fn=lambda prompt, ids: answer)


def test_the_callers_functions_are_obeyed(generator: EdgeGenerator) -> None:
    def forbid_all_but_five(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        scores[:, np.arange(320) != 5] = -np.inf
        return scores

    assert generator.generate([1], max_new_tokens=3, logits_processor=forbid_all_but_five).generated == [
        [5, 5, 5]
    ]
    allowed = generator.generate(
        [[1], [2]], max_new_tokens=2, prefix_allowed_tokens_fn=lambda prompt, ids: [10 + prompt]
    )
    assert allowed.generated == [[10, 10], [11, 11]]
    stopped = generator.generate(
        [[1], [2, 3]], max_new_tokens=9, stopping_criteria=lambda ids, scores: ids.shape[1] == 5
    )
    assert (stopped.lengths, stopped.finish_reasons) == ([5, 5], ["stop", "stop"])


def test_a_function_that_raises_leaves_nothing_behind(generator: EdgeGenerator) -> None:
    expected = generator.generate([3, 4], max_new_tokens=4).sequences

    def fail(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        generator.generate([1, 2], logits_processor=fail)
    np.testing.assert_array_equal(generator.generate([3, 4], max_new_tokens=4).sequences, expected)


def test_threads_take_turns(generator: EdgeGenerator) -> None:
    prompts = [[i + 1, i + 2] for i in range(6)]
    expected = [generator.generate(ids, max_new_tokens=10).sequences.tolist() for ids in prompts]
    found: list[Any] = [None] * 6

    def work(i: int) -> None:
        found[i] = generator.generate(prompts[i], max_new_tokens=10).sequences.tolist()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


# --- folders that cannot be opened


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, **changes}), encoding="utf-8")


def test_missing_and_damaged_files_are_named(model_copy: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ModelFolderError, match=message):
            EdgeGenerator.from_pretrained(model_copy)

    def damaged(name: str, content: bytes | None, message: str) -> None:
        path = model_copy / name
        original = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        refused(message)
        path.write_bytes(original)

    weights = (model_copy / "weights.bin").read_bytes()
    graph = (model_copy / "decoder.onnx").read_bytes()
    damaged("config.json", None, r"config\.json")
    damaged("config.json", b"{", r"config\.json is not valid JSON")
    damaged("weights.bin", None, r"cannot read .*weights\.bin: No such file")
    damaged("weights.bin", weights[:-1000], r"weights\.bin is truncated")
    damaged("weights.bin", b"GGUF" + weights[4:], r"weights\.bin is not a weights file")
    damaged("decoder.onnx", None, r"cannot read .*decoder\.onnx: No such file")
    damaged("decoder.onnx", graph[: len(graph) // 2], r"decoder\.onnx is damaged")
    damaged("tokenizer.json", b"{}", r"tokenizer\.json is not a tokenizer")
    damaged("generation_config.json", b'{"do_sample": true, "top_p": 7}', r"top_p is 7")
    EdgeGenerator.from_pretrained(model_copy)


def test_a_flipped_bit_of_a_norm_in_the_graph_is_told(model_copy: Path) -> None:
    """onnxruntime loads such a graph and computes with the wrong number."""
    onnx = pytest.importorskip("onnx")
    path = model_copy / "decoder.onnx"
    graph = path.read_bytes()
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    norm = next(tensor.raw_data for tensor in tensors if tensor.name == "transformer.ln_f.weight")
    at = graph.index(norm) + 2  # in the mantissa of its first number
    flipped = graph[:at] + bytes([graph[at] ^ 0x40]) + graph[at + 1 :]
    path.write_bytes(flipped)
    with pytest.raises(
        ModelFolderError, match=r"decoder\.onnx is damaged.*Copy the whole model folder again"
    ):
        EdgeGenerator.from_pretrained(model_copy)
    accept_graphs(model_copy)
    EdgeGenerator.from_pretrained(model_copy)  # nothing but the hash could tell


def test_a_graph_that_onnxruntime_refuses_is_named(model_copy: Path) -> None:
    (model_copy / "decoder.onnx").write_bytes(b"no graph")
    accept_graphs(model_copy)
    with pytest.raises(ModelFolderError, match=r"onnxruntime cannot load .*decoder\.onnx"):
        EdgeGenerator.from_pretrained(model_copy)


def test_files_of_different_models_are_told_apart(model_copy: Path, tmp_path: Path) -> None:
    other = export_tiny(
        tmp_path / "other", {"vocab_size": 320, "block_size": 96, "seed": 1}, kv_cache_dtype="float32"
    ).folder
    for name in ("weights.bin", "decoder.onnx"):
        original = (model_copy / name).read_bytes()
        shutil.copy(other / name, model_copy / name)
        with pytest.raises(
            ModelFolderError, match=rf"{re.escape(name)} (is damaged or )?belongs to another model"
        ):
            EdgeGenerator.from_pretrained(model_copy)
        (model_copy / name).write_bytes(original)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 3}, r"the graph lacks the input past_key_values\.2\.key"),
        ({"n_layer": 1}, r"the graph has the unknown input past_key_values\.1\.key"),
        (
            {"n_heads": 4},
            r"value is tensor\(float\) \[any, 4, any, 4\] there and .* \[rows, 2, capacity, 8\] in the graph",
        ),
        ({"vocab_size": 321}, r"logits is .* \[any, 321\] there and tensor\(float\) \[n, 320\] in the graph"),
        ({"block_size": 97}, "block_size is 97 there and 96"),
    ],
)
def test_a_config_that_disagrees_with_the_graph_is_refused(
    model_copy: Path, changes: dict[str, int], message: str
) -> None:
    edit_config(model_copy, **changes)
    with pytest.raises(ModelFolderError, match=message):
        EdgeGenerator.from_pretrained(model_copy)


def test_something_that_is_no_model_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="nowhere is not a folder"):
        EdgeGenerator.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ModelFolderError, match="or a bundled model: nano"):
        EdgeGenerator.from_pretrained("nanno")


def test_another_folder_called_nano_does_not_hide_the_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nano").mkdir()
    monkeypatch.chdir(tmp_path)
    assert EdgeGenerator.from_pretrained("nano").config.gptjx.vocab_size == 2048


class Subclass(EdgeGenerator):
    """What a caller may derive; pickle finds it here."""


def test_a_copied_or_pickled_subclass_stays_one(text_model: Path) -> None:
    with Subclass.from_pretrained(text_model) as generator:
        for again in (copy.copy(generator), pickle.loads(pickle.dumps(generator))):
            assert type(again) is Subclass
            again.close()
