"""Fixtures that several test files share."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.tasks.family import family_tasks
from tests.chat.family import family_folder
from tests.device import LACKING, needs
from tests.export.models import Exported, export_tiny
from tests.tasks.tags import tagged_tokenizer
from tests.tiny_tokenizer import tiny_tokenizer

# The models are tiny: torch's threads would only wait for one another, for long where tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sanitize",
        action="store_true",
        help="also build and run the native tests with the sanitizers (addresses and undefined behaviour; threads), "
        "and tests of the Python modules with the first two (needs GCC, pybind11 and cython)",
    )


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell starts what runs in the background so
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str | None:
    return f"without {', '.join(sorted(LACKING))}: tests that need them are left out" if LACKING else None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what cannot be imported on a device, whole folders by their conftest.py."""
    file = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    return True if file.suffix == ".py" and file.is_file() and needs(file) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    return (yield from skipped_for_what_is_lacking())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    return (yield from skipped_for_what_is_lacking())


def skipped_for_what_is_lacking() -> Iterator[None]:
    """Skip a test, rather than fail it, that comes upon a package which a device does not have."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = error.name or ""
        if name not in LACKING and name.split(".")[0] not in LACKING:
            raise
        pytest.skip(f"there is no {error.name} here")


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported tiny model with a byte-level tokenizer of 320 entries; tests must not change the folder."""
    folder = tmp_path_factory.mktemp("text-model")
    tokenizer = tiny_tokenizer()
    exported = export_tiny(
        folder, {"vocab_size": tokenizer.get_vocab_size(), "block_size": 96}, kv_cache_dtype="float32"
    )
    tokenizer.save(str(exported.folder / "tokenizer.json"))
    return exported.folder


@pytest.fixture
def free_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock by which decode steps learn what a guess costs: then it costs next to nothing."""
    monkeypatch.setattr("sabiyarn_edge.engine._decode.perf_counter", lambda: 0.0)


@pytest.fixture
def eager_guesses(monkeypatch: pytest.MonkeyPatch, free_guesses: None) -> None:
    """Have prompt lookup run guesses from the first token on, as if many had been right before."""
    from sabiyarn_edge._core import Guesser
    from sabiyarn_edge._core_testing import guess, note_token

    def confident(max_guesses: int, max_ngram: int) -> Guesser:
        guesser = Guesser(max_guesses, max_ngram)
        for _ in range(300):
            for ngram in ([1], [1, 2], [1, 2, 3]):
                guess(guesser, [*ngram, 4, *ngram], 1.0, 0)
                assert note_token(guesser, 4)
        return guesser

    monkeypatch.setattr("sabiyarn_edge.engine.generation.Guesser", confident)


@pytest.fixture(scope="session")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An exported tiny model with SabiYarn's tasks; tests must not change the folder."""
    tokenizer = tagged_tokenizer()
    exported = export_tiny(
        tmp_path_factory.mktemp("tagged-model"),
        {"vocab_size": tokenizer.get_vocab_size(), "block_size": 256},
        kv_cache_dtype="float32",
        verify=False,
    )
    tokenizer.save(str(exported.folder / "tokenizer.json"))
    values = family_tasks(lambda token: tokenizer.token_to_id(token) is not None)
    (exported.folder / "tasks.json").write_text(json.dumps(values), encoding="utf-8")
    return exported


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported tiny model with a chat template in the family's form; tests must not change the folder."""
    return family_folder(tmp_path_factory.mktemp("chat-model"))


@pytest.fixture(scope="module")
def forgetful(text_model: Path) -> EdgeGenerator:
    """The oracle: computes every prompt from its first token."""
    return EdgeGenerator.from_pretrained(text_model, num_threads=1, reuse_prefix=False)
