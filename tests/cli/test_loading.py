"""The options that say how a model is loaded, in every command that has them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.cli.commands import _parser
from sabiyarn_edge.errors import SabiYarnError
from tests.cli.conftest import Ran

Loading = dict[str, Any]

SHARED = {
    "--threads 3": ("num_threads", 3),
    "--low-power": ("low_power", True),
    "--resident": ("resident", True),
    "--kv-window 128": ("kv_window", 128),
    "--num-sink-tokens 4": ("num_sink_tokens", 4),
    "--memory-limit 300": ("memory_limit_mb", 300.0),
    "--fit": ("fit", True),
}
"""What is typed -> the argument of EdgeGenerator.from_pretrained, and its value."""
OVERFLOW = {"--overflow slide": ("overflow", "slide"), "--keep-tokens 2": ("keep_tokens", 2)}
TRUNCATE = {"--overflow truncate_prompt": ("overflow", "truncate_prompt")}
ALL = {**SHARED, **OVERFLOW, **TRUNCATE}
FEW = {typed: SHARED[typed] for typed in ("--threads 3", "--low-power", "--resident")}

COMMANDS: dict[str, tuple[str, dict[str, tuple[str, Any]]]] = {
    "generate": ("generate a", ALL),
    "chat": ("chat", ALL),
    "batch": ("batch FILE OUTPUT", ALL),
    "score": ("score FILE", {**SHARED, **OVERFLOW}),
    "embed": ("embed FILE", SHARED),
    "translate": ("translate --to yor a", ALL),
    "diacritize": ("diacritize a", ALL),
    "clean": ("clean a", ALL),
    "classify": ("classify --labels a,b c", SHARED),
    "tag-entities": ("tag-entities a", ALL),
    "identify-language": ("identify-language a", SHARED),
    "summarize": ("summarize a", ALL),
    "headline": ("headline a", ALL),
    "answer": ("answer --context a b", ALL),
    "instruct": ("instruct a", ALL),
    "a task of the folder": ("continue --language yor a", ALL),
    "bench": ("bench nano", FEW),
}
"""Name -> a command line, and the loading options that it may have besides."""

DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(EdgeGenerator.from_pretrained).parameters.items()
}
"""What a command that is given no option loads with."""
NOT_TAKEN = [
    *(("score", typed, "argument --overflow: invalid choice: 'truncate_prompt'") for typed in TRUNCATE),
    *(
        (name, typed, f"unknown option {typed.split()[0]}")
        for name in ("embed", "classify", "identify-language", "bench")
        for typed in OVERFLOW
    ),
]


@pytest.fixture
def words(tmp_path: Path) -> Callable[[str, str], list[str]]:
    """words("score", "--fit"): a command line with a loading option."""
    (tmp_path / "texts.txt").write_text("a\n")
    files = {"FILE": str(tmp_path / "texts.txt"), "OUTPUT": str(tmp_path / "out.jsonl")}

    def words(name: str, typed: str) -> list[str]:
        first, *rest = COMMANDS[name][0].split()
        return [first, *typed.split(), *(files.get(word, word) for word in rest)]

    return words


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Loading]]:
    """What a command asks to be loaded; nothing is."""
    calls: list[tuple[Path, Loading]] = []

    def record(path: str | Path, **loading: Any) -> EdgeGenerator:
        calls.append((Path(path), loading))
        raise SabiYarnError("nothing is loaded")

    monkeypatch.setattr(EdgeGenerator, "from_pretrained", record)
    return calls


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_reaches_the_generator(
    run: Callable[..., Ran],
    words: Callable[[str, str], list[str]],
    loaded: list[tuple[Path, Loading]],
    name: str,
) -> None:
    options = COMMANDS[name][1]
    for typed in ("", *options):
        assert run(*words(name, typed)).error == "nothing is loaded"
    assert {path.name for path, _ in loaded} == {"nano"}
    without, *given = [loading for _, loading in loaded]
    assert without == {argument: DEFAULTS[argument] for argument in without}
    for (argument, value), loading in zip(options.values(), given, strict=True):
        assert DEFAULTS[argument] != value
        assert loading == {**without, argument: value}


@pytest.mark.parametrize(("name", "typed", "error"), NOT_TAKEN)
def test_what_would_do_nothing_is_refused(
    run: Callable[..., Ran], words: Callable[[str, str], list[str]], name: str, typed: str, error: str
) -> None:
    ran = run(*words(name, typed))
    assert (ran.code, ran.out) == (2, "")
    assert ran.error.startswith(error)


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ("--threads 0", "--threads is 0, but must be an integer of at least 1. Leave it out"),
        ("--threads two", "argument --threads: invalid int value: 'two'"),
        ("--kv-window 1", "--kv-window is 1, but must be an integer of at least 2"),
        ("--num-sink-tokens -1", "--num-sink-tokens is -1"),
        ("--kv-window 8 --num-sink-tokens 8", "--num-sink-tokens is 8"),
        ("--memory-limit nan", "--memory-limit is nan"),
        ("--memory-limit 1", "--memory-limit is 1, but"),
        ("--fit", "--fit was given without memory_limit_mb (--memory-limit)"),
        ("--overflow slip", "argument --overflow: invalid choice: 'slip'"),
        ("--keep-tokens -1", "--keep-tokens is -1"),
        ("--overflow slide --keep-tokens 5000", "--keep-tokens is 5000"),
    ],
)
@pytest.mark.parametrize("name", ["generate", "batch", "score", "embed", "translate", "classify"])
def test_a_wrong_value_is_one_line(
    run: Callable[..., Ran], words: Callable[[str, str], list[str]], name: str, typed: str, error: str
) -> None:
    if typed.startswith(("--overflow", "--keep-tokens")) and COMMANDS[name][1] is SHARED:
        error = f"unknown option {typed.split()[0]}"
    ran = run(*words(name, typed))
    assert (ran.code, ran.out) == (2, "")
    assert error in ran.error


def test_a_flag_has_one_help_text() -> None:
    """Only the server's --memory-limit means another thing: the limit of all its models together."""
    [commands] = [action.choices for action in _parser()._actions if isinstance(action.choices, dict)]
    for typed in SHARED:
        flag = typed.split()[0]
        helps = {
            action.help
            for name, parser in commands.items()
            for action in parser._actions
            if flag in action.option_strings and (name, flag) != ("serve", "--memory-limit")
        }
        assert len(helps) == 1, flag


def test_scores_are_those_of_the_python_api(
    run: Callable[..., Ran], text_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("Gbogbo ènìyàn ni a bí\n" + "word " * 40 + "\n", encoding="utf-8")
    texts = file.read_text(encoding="utf-8").splitlines()
    options = ("--kv-window", 8, "--num-sink-tokens", 2, "--overflow", "slide", "--keep-tokens", 3)
    command = ("score", file, "--model", text_model, "--json", "--quiet")
    ran = run(*command, *options, "--resident", "--low-power")
    generator = EdgeGenerator.from_pretrained(
        text_model, kv_window=8, num_sink_tokens=2, overflow="slide", keep_tokens=3
    )
    found = [json.loads(line)["log_probs"] for line in ran.out.splitlines()]
    assert found == [score.log_probs.tolist() for score in generator.score(texts)]
    whole = run(*command, "--overflow", "slide")
    assert found != [json.loads(line)["log_probs"] for line in whole.out.splitlines()]


def test_vectors_are_those_of_the_python_api(
    run: Callable[..., Ran], text_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("Gbogbo ènìyàn ni a bí\n", encoding="utf-8")
    command = ("embed", file, "--model", text_model)
    [record] = map(json.loads, run(*command, "--kv-window", 8, "--memory-limit", 300).out.splitlines())
    with EdgeGenerator.from_pretrained(text_model, kv_window=8) as generator:
        expected = generator.embed("Gbogbo ènìyàn ni a bí").tolist()
    assert record["embedding"] == expected
    [whole] = map(json.loads, run(*command).out.splitlines())
    assert whole["embedding"] != expected


def test_a_vector_file_goes_on_only_with_the_same_window(
    run: Callable[..., Ran], text_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("ọmọ\n", encoding="utf-8")
    command = (
        "embed",
        tmp_path / "texts.txt",
        "--output",
        tmp_path / "v.npy",
        "--model",
        text_model,
        "--quiet",
    )
    assert run(*command, "--kv-window", 8).code == 0
    assert "kv_window" in run(*command).error
