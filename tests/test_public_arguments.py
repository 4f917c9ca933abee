"""Every argument of every public function, with values of every wrong kind: only this package's errors come out."""

from __future__ import annotations

import inspect
import itertools
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sabiyarn_edge
from sabiyarn_edge import EdgeGenerator, GenerationConfig, Session
from sabiyarn_edge.errors import InvalidInputError, SabiYarnError, shown
from sabiyarn_edge.generator import find_model
from sabiyarn_edge.options.loading import check_loading
from sabiyarn_edge.tasks.family import family_tasks

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


NANO = find_model("nano")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Failing:
    """Says of itself that it is a number, a path and an array, and is none."""

    def fail(self, *_: object, **__: object) -> Any:
        raise RuntimeError("no value")

    __index__ = __fspath__ = __array__ = __len__ = __bool__ = __eq__ = fail
    __hash__ = None  # type: ignore[assignment]


def nested(depth: int, made: Any = 1) -> Any:
    for _ in range(depth):
        made = [made]
    return made


def doubled(depth: int) -> Any:
    """Of so many lists, but 2 ** depth for who looks at each."""
    made: Any = [1]
    for _ in range(depth):
        made = [made, made]
    return made


def holds_itself() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


def tensors() -> list[Any]:
    """Tensors that NumPy cannot take, where torch is there."""
    try:
        import torch
    except ImportError:
        return []
    eye = torch.eye(3)
    return [
        torch.empty(3, dtype=torch.int64, device="meta"),
        eye.to_sparse(),
        eye.to(torch.float8_e4m3fn),
        torch.zeros(2, dtype=torch.complex64).conj(),
        [eye.to("meta")],
    ]


NUMBERS = [
    -1,
    0,
    3,
    2**31,
    2**63,
    10**30,
    10**5000,
    -(10**5000),
    1.5,
    1e308,
    -1e308,
    5e-324,
    float("nan"),
    float("inf"),
    np.float32(2),
    np.array(3),
]
TEXTS = ["a" * 100_000, "", "x", "12", "false", "off", "None", "\ud800", "a\0b", b"x", b""]
OTHERS = [
    None, True, False, [], [[]], [None], ["x", 3], {}, {1: 2}, set(), object(), Unprintable(), np.zeros(0),
    np.zeros((2, 2, 2)), np.array(["x"]), iter([]), np.zeros((2, 2)), range(10**9),
    np.broadcast_to(5, 10**9), [range(10**9)], [1, range(10**9)],
    [True, 5], [-1, 2**63], [10**5000], [[1], [2, 3]], Failing(), [Failing()],
    nested(10), nested(100_000), doubled(60), holds_itself(), [1, holds_itself()], {"a": holds_itself()},
]  # fmt: skip
VALUES = [*NUMBERS, *TEXTS, *OTHERS, *tensors()]

BOOLS = {"low_power", "fit", "resident", "reuse_prefix", "do_sample", "include_stop_string", "output_scores",
         "renormalize_logits", "normalize", "special_tokens"}  # fmt: skip
"""Arguments that are True or False, and nothing that Python takes for it."""
NUMBERS_ONLY = {
    "num_threads", "max_length", "max_batch_size", "kv_window", "num_sink_tokens", "keep_tokens", "prefix_cache_mb",
    "memory_limit_mb", "prompt_length", "batch", "beams", "max_in_flight", "num_tokens", "window", "total", "length",
    "separator_id", "max_new_tokens", "min_new_tokens", "min_length", "max_time", "num_beams", "num_return_sequences",
    "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "length_penalty",
    "repetition_penalty", "penalty_window", "frequency_penalty", "presence_penalty", "no_repeat_ngram_size",
    "prompt_lookup_num_tokens", "max_matching_ngram_size", "pad_token_id", "bos_token_id", "forced_bos_token_id",
}  # fmt: skip
PATHS = {"path", "folder"}
TEXTS_ONLY = {"attachment"}


def must_be_refused(name: str, value: Any) -> bool:
    """Whether a value is wrong by its kind alone, whatever the model."""
    if value is None:  # "the default", for what has one
        return name in PATHS | TEXTS_ONLY
    if name in BOOLS:
        return not isinstance(value, bool)
    if name in PATHS:
        return not isinstance(value, str) or value in ("", "\ud800", "a\0b")
    if name in TEXTS_ONLY:
        return not isinstance(value, str)
    return name in NUMBERS_ONLY and (
        not isinstance(value, int | float | np.number | np.ndarray) or value is True
    )


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong values stand for paths too, and "x" is one that can be written."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> EdgeGenerator:
    """nano, with a chat template, and with every task, of one token each."""
    folder = tmp_path_factory.mktemp("chat") / "nano"
    shutil.copytree(NANO, folder)
    (folder / "chat_template.jinja").write_text("{{ messages[-1].content }}", encoding="utf-8")
    tasks = family_tasks(lambda token: True)
    for task in tasks["tasks"].values():
        task["options"] = {"max_new_tokens": 1}
    (folder / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    return EdgeGenerator.from_pretrained(folder, num_threads=1)


def take(result: Any) -> None:
    """Have an iterator run to its first item: what it refuses it may refuse there."""
    if hasattr(result, "__next__"):
        for _ in itertools.islice(result, 1):
            pass


def calls(generator: EdgeGenerator, tmp_path: Path) -> dict[Callable[..., Any], dict[str, Any]]:
    """Every public function, with arguments that are right."""
    session, kept = generator.session([5, 6]), generator.session([5, 6])  # of the latter no call makes less
    kept.save(tmp_path / "text")
    chat = generator.chat_session()
    chat.send("a", max_new_tokens=1)
    chat.save(tmp_path / "chat")
    ids, texts = {"inputs": [5, 6]}, {"texts": "a"}
    messages = {"messages": [{"role": "user", "content": "a"}]}
    return {
        EdgeGenerator.from_pretrained: {"path": NANO, "num_threads": 1},
        EdgeGenerator.plan: {"path": NANO},
        generator.generate: ids,
        generator.stream: ids,
        generator.map: {"inputs": [[5, 6]]},
        generator.score: {"texts": [[5, 6]]},
        generator.embed: ids,
        generator.session: ids,
        generator.load_session: {"path": tmp_path / "text"},
        generator.run_task: {"name": "translate", "text": "a", "to": "yor", "options": {"max_new_tokens": 1}},
        generator.translate: {**texts, "to": "yor", "max_new_tokens": 1},
        **{
            getattr(generator, name): texts
            for name in ("diacritize", "clean", "summarize", "headline", "identify_language", "tag_entities")
        },
        generator.instruct: {"instructions": "a"},
        generator.answer: {"question": "a", "context": "a"},
        generator.classify: {**texts, "labels": ["a", "b"]},
        generator.chat: {**messages, "max_new_tokens": 1},
        generator.chat_stream: {**messages, "max_new_tokens": 1},
        generator.chat_session: messages,
        generator.load_chat: {"path": tmp_path / "chat"},
        session.append: ids,
        session.generate: ids,
        session.stream: ids,
        session.truncate: {"num_tokens": 1},
        kept.save: {"path": tmp_path / "session"},
        GenerationConfig.from_dict: {"values": {}},
        GenerationConfig.of: {"given": {}},
        GenerationConfig.load: {"folder": NANO},
        GenerationConfig().save: {"folder": tmp_path},
        sabiyarn_edge.document_mask: {"ids": [5, 6], "separator_id": 5},
        sabiyarn_edge.prefix_mask: {"length": 2, "total": 3},
        sabiyarn_edge.sliding_window_mask: {"window": 2, "total": 3},
    }


WITHOUT_ARGUMENTS = {
    *("cancel", "clear_kv_cache", "close", "free_kv_cache", "memory_usage", "fork"),
    *("validate", "to_dict", "unused_options"),
}
"""Public methods that take none."""
TESTED_ELSEWHERE = {
    *("agenerate", "astream", "aembed", "achat", "achat_stream"),  # as without the a
    "updated",  # below, with all options
    "extend", "hold",  # a session's stream calls them
    "from_json_file",
}  # fmt: skip


def public_methods(owner: type) -> Iterator[str]:
    for name in dir(owner):
        if not name.startswith("_") and callable(getattr(owner, name)):
            yield name


def test_the_table_has_every_public_function(
    generator: EdgeGenerator, text_model: Path, tmp_path: Path
) -> None:
    tested = {function.__name__ for function in calls(generator, tmp_path)}
    tested |= WITHOUT_ARGUMENTS | TESTED_ELSEWHERE
    for owner in (EdgeGenerator, Session, GenerationConfig):
        assert set(public_methods(owner)) <= tested
    functions = {name for name in sabiyarn_edge.__all__ if inspect.isfunction(getattr(sabiyarn_edge, name))}
    assert functions <= tested


def test_the_tables_own_arguments_are_taken(generator: EdgeGenerator, tmp_path: Path) -> None:
    """Else a wrong value is refused for another argument's sake."""
    for function, right in calls(generator, tmp_path).items():
        keywords = {key: given for key, given in right.items() if key != "name"}
        take(function(*[right["name"]] if "name" in right else [], **keywords))


def test_every_argument_of_every_function(generator: EdgeGenerator, tmp_path: Path) -> None:
    for function, right in calls(generator, tmp_path).items():
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                check_argument(function, right, name, {})


def check_argument(
    function: Callable[..., Any], right: dict[str, Any], name: str, more: dict[str, Any]
) -> None:
    for value in VALUES:
        if function.__name__ == "append" and isinstance(value, type(iter([]))):
            continue
        place = f"{function.__name__}({name}={shown(value)})"
        positional = {
            key: given for key, given in right.items() if key == "name"
        }  # run_task's is positional only
        keywords = {
            key: given for key, given in {**right, **more, name: value}.items() if key not in positional
        }
        arguments = [value if name in positional else given for given in positional.values()]
        try:
            take(function(*arguments, **keywords))
        except SabiYarnError as error:
            assert "\n" not in str(error), place
            assert len(str(error)) < 1000, place
            if must_be_refused(name, value):
                assert isinstance(error, InvalidInputError), place
                assert name in str(error), f"{place}: {error}"
                assert "must be" in str(error), f"{place}: {error}"
        except BaseException as error:
            raise AssertionError(f"{place} gave {type(error).__name__}: {error}") from error
        else:
            assert not must_be_refused(name, value), f"{place} was taken"


OPTIONS = [
    *GenerationConfig.__dataclass_fields__,
    *("overflow", "keep_tokens", "reuse_prefix", "attn_mask", "attention_mask", "logits_processor"),
    *("prefix_allowed_tokens_fn", "stopping_criteria", "input_ids", "unknown_option"),
]


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_of_a_call(generator: EdgeGenerator, name: str) -> None:
    more = {} if name == "max_new_tokens" else {"max_new_tokens": 1}
    if name == "input_ids":
        check_argument(generator.generate, {}, name, more)
    else:
        check_argument(generator.generate, {"inputs": [5, 6]}, name, more)


@pytest.mark.parametrize("name", sorted(GenerationConfig.__dataclass_fields__))
def test_every_option_of_a_config(name: str) -> None:
    def made(**options: Any) -> GenerationConfig:
        return GenerationConfig().updated(**options)

    check_argument(made, {}, name, {})


def test_every_argument_of_loading_has_a_check() -> None:
    parameters = inspect.signature(EdgeGenerator.from_pretrained).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert check_loading(defaults) == {**defaults, "path": Path("nano")}


# --- forms that people have


def test_functions_that_give_garbage(generator: EdgeGenerator) -> None:
    for name, garbage in {
        "logits_processor": (None, 5, "x", [[1.0], [1.0, 2.0]], np.zeros(3), object()),
        "prefix_allowed_tokens_fn": (None, 5, "x", [], [[1]], [1.5], [10**6], [-1], object()),
    }.items():
        for result in garbage:
            with pytest.raises(InvalidInputError, match=name.split("_fn")[0]):
                generator.generate([5, 6], max_new_tokens=2, **{name: lambda *_, result=result: result})


def test_a_number_in_place_of_the_config_names_the_option(generator: EdgeGenerator) -> None:
    with pytest.raises(InvalidInputError, match=r"generation_config is 20, but must be .* max_new_tokens=20"):
        generator.generate([5, 6], 20)


def test_a_dict_is_a_config(generator: EdgeGenerator) -> None:
    expected = generator.generate([5, 6], GenerationConfig(max_new_tokens=3))
    found = generator.generate([5, 6], {"max_new_tokens": 3})
    np.testing.assert_array_equal(found.sequences, expected.sequences)
    with pytest.raises(InvalidInputError, match="unknown option max_tokens"):
        generator.generate([5, 6], {"max_tokens": 3})


def test_an_option_warning_points_at_the_callers_line(generator: EdgeGenerator) -> None:
    session = generator.session([5])
    lines = [
        lambda: GenerationConfig(temperature=0.5),
        lambda: GenerationConfig().updated(temperature=0.5),
        lambda: GenerationConfig.from_dict({"nothing": 1}),
        lambda: generator.generate([5], temperature=0.5, max_new_tokens=1),
        lambda: session.generate(temperature=0.5, max_new_tokens=1),
        lambda: list(generator.stream([5], temperature=0.5, max_new_tokens=1)),
        lambda: list(generator.map([[5]], temperature=0.5, max_new_tokens=1)),
        lambda: generator.generate(input_ids=[[5]], token_type_ids=[[0]], max_new_tokens=1),
    ]
    for call in lines:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        [warning] = caught
        assert (warning.filename, warning.lineno) == (__file__, call.__code__.co_firstlineno)
