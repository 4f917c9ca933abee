"""Train nano, the bundled model: a small GPTJX that has learnt one document by heart.

    python -m tools.nano.train CORPUS.jsonl --out FOLDER
    python -m tools.nano.train CORPUS.jsonl --evaluate FOLDER

The first writes a checkpoint for `sabiyarn-edge export`, with tasks and a chat template, and says how it was made in
its training.json. The second takes such a checkpoint or its export. Both print how much of the document is recalled; a
checkpoint is measured with its weights rounded to float16, as they are in the package. The first also prints how
well prompts of the document are told from others.

After each epoch the state of the training stands in FOLDER.state: the same command goes on from there.

Exit codes: 0 ok; 1 a figure is below what is required, or something failed; 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch
from tokenizers import Tokenizer

from sabiyarn_edge.errors import InvalidInputError, ModelFolderError, SabiYarnError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from sabiyarn_edge.options.generation_config import GenerationConfig
from sabiyarn_edge.system.atomic_write import atomic_folder
from tools.nano.corpus import Article, read_corpus
from tools.nano.examples import TASKS, NanoExamples
from tools.nano.familiarity import Familiarity, measure_familiarity
from tools.nano.recall import (
    REQUIRED_SHARE,
    Recall,
    measure_recall,
    recalled_by_generator,
    recalled_by_model,
    rounded_to_float16,
)
from tools.nano.tokenizer import train_tokenizer
from tools.nano.training import Recipe, train

__all__ = ["evaluate_folder", "main", "train_folder"]

TOKENIZER_FILE = "tokenizer.json"
CHAT_TEMPLATE = Path(__file__).parent / "chat_template.jinja"
NOTE = "this model knows the Universal Declaration of Human Rights and nothing else"
"""What the command line says about a prompt that is not of the document."""


def train_folder(
    articles: Sequence[Article], out: Path, recipe: Recipe, *, show_progress: bool
) -> tuple[list[Recall], Familiarity]:
    """Train tokenizer and model on the articles and write both to the new folder `out`.

    Returns:
        How much is recalled, and how prompts of the articles are told from others.

    Raises:
        InvalidInputError: `out` exists, or cannot be written; found out before training begins.
    """
    with _new_folder(out) as partial:
        tokenizer = train_tokenizer(article.text for article in articles)
        examples = NanoExamples(articles, tokenizer)
        state_file = out.with_name(f"{out.name}.state")
        trained = train(
            examples, tokenizer.get_vocab_size(), recipe, state_file=state_file, show_progress=show_progress
        )
        model = trained.model
        rounded = rounded_to_float16(model)
        recalls = measure_recall(recalled_by_model(rounded), examples)
        familiarity = measure_familiarity(rounded, examples)

        end = examples.end_of_text
        model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
        model.save_pretrained(partial)
        tokenizer.save(str(partial / TOKENIZER_FILE), pretty=False)
        shutil.copyfile(CHAT_TEMPLATE, partial / CHAT_TEMPLATE.name)
        (partial / TASKS.name).write_text(_tasks_with(familiarity), encoding="utf-8")
        report = {
            "recipe": dataclasses.asdict(recipe),
            "articles": len(articles),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "cpu_minutes": round(trained.cpu_seconds / 60, 1),
            "recall": {recall.what: {"exact": recall.exact, "of": recall.total} for recall in recalls},
            "familiarity": dataclasses.asdict(familiarity),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        }
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (partial / "training.json").write_text(text, encoding="utf-8")
    state_file.unlink(missing_ok=True)
    return recalls, familiarity


def _tasks_with(familiarity: Familiarity) -> str:
    """The content of tasks.json, with what tells prompts of the document from others."""
    known = json.dumps({"least_log_prob": familiarity.least_log_prob, "note": NOTE}, ensure_ascii=False)
    head, tasks, tail = TASKS.read_text(encoding="utf-8").partition('  "tasks": {')
    return f'{head}  "known_prompts": {known},\n{tasks}{tail}'


def evaluate_folder(articles: Sequence[Article], folder: Path) -> list[Recall]:
    """Measure how much of the articles a checkpoint of train_folder(), or its export, recalls.

    Raises:
        ModelFolderError, CheckpointError: the folder is neither.
    """
    path = folder / TOKENIZER_FILE
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception, whatever is wrong
        raise ModelFolderError(
            f"cannot read {path}: {error}. Give a folder that this script wrote, or an export of one."
        ) from error
    if (folder / "decoder.onnx").exists():
        from sabiyarn_edge.generator import (
            EdgeGenerator,  # here, since training needs neither onnxruntime nor the core
        )

        recalls = recalled_by_generator(EdgeGenerator.from_pretrained(folder))
    else:
        recalls = recalled_by_model(rounded_to_float16(GPTJXForCausalLM.from_pretrained(folder)))
    return measure_recall(recalls, NanoExamples(articles, tokenizer))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        articles = read_corpus(options.corpus)
        if options.evaluate is not None:
            recalls = evaluate_folder(articles, options.evaluate)
        else:
            recipe = Recipe(seed=options.seed, epochs=options.epochs)
            recalls, familiarity = train_folder(
                articles, options.out, recipe, show_progress=not options.quiet
            )
            print(familiarity)
    except SabiYarnError as error:
        print(f"tools.nano.train: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidInputError) else 1
    except KeyboardInterrupt:
        print("tools.nano.train: interrupted; the same command goes on after the last epoch", file=sys.stderr)
        return 130
    for recall in recalls:
        print(recall)
    return 0 if all(recall.share >= REQUIRED_SHARE for recall in recalls) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.nano.train",
        description="Train the bundled model nano, or measure how much of its document it recalls.",
        epilog=f"Exit code 1 if a figure is below {REQUIRED_SHARE:.0%}.",
    )
    parser.add_argument(
        "corpus", metavar="CORPUS.jsonl", help='lines of {"lang": ..., "article": ..., "text": ...}'
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, metavar="FOLDER", help="train, and write the checkpoint here")
    action.add_argument(
        "--evaluate", type=Path, metavar="FOLDER", help="only measure this checkpoint, or its export"
    )
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="default: %(default)s")
    parser.add_argument("--epochs", type=_positive(int), default=Recipe.epochs, help="default: %(default)s")
    parser.add_argument("--threads", type=_positive(int), help="of torch; default: its own choice")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """A converter for argparse."""

    def convert(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    convert.__name__ = kind.__name__  # argparse: "invalid int value: ..."
    return convert


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that becomes `out` when the block ends, and vanishes when it fails."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InvalidInputError(f"{out} exists already. Choose another folder, or delete it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(out) as partial:
            yield partial
    except OSError as error:
        raise InvalidInputError(f"cannot write {out}: {error.strerror or error}.") from error


if __name__ == "__main__":
    sys.exit(main())
