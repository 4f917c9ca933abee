"""sabiyarn-edge pack: pack a model's weights for this CPU ahead of the first run."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from ..errors import InvalidInputError, ModelFolderError
from ..model_folder.cache_folder import ENVIRONMENT_VARIABLE, cache_folder, disk_bytes
from ..model_folder.config import ModelConfig
from ..model_folder.weight_cache import MIN_WEIGHTS_BYTES, WeightCacheWarning, packed_folder, replace_weights
from .parser import Parser
from .terminal import PROGRAM

__all__ = ["add_to", "run"]

MIB = 1024 * 1024

EPILOG = f"""\
The first run of a model does this by itself; with this command it is done when the model is installed. The packed
file begins with a copy of the model's weights. --replace makes MODEL's weights.bin another name of the packed file (a
hard link), so that the disk holds them once; it stays so when they are packed anew, as for another onnxruntime. The
model works as before, here and wherever it is copied, but its weights.bin is about twice as long.

examples:
  {PROGRAM} pack FOLDER
  {PROGRAM} pack FOLDER --replace
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "pack",
        help="pack a model's weights for this CPU ahead of the first run",
        description="Packs a model's weights for this CPU and keeps them in the cache folder.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("model", metavar="MODEL", help="model folder, or the name of a bundled model (nano)")
    parser.add_argument(
        "--replace", action="store_true", help="let MODEL's weights.bin be the packed file, to save disk"
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from ..engine.decoder import caches_weights
    from ..generator import find_model

    folder = find_model(arguments.model)
    config = ModelConfig.load(folder)
    if not config.packs_weights:
        print(
            f"{folder} needs no packing: {config.dtype} weights are used as they lie in {config.weights_file}"
        )
        return
    if not caches_weights(config, None):
        print(
            f"{folder} needs no packing ahead: its weights take {config.weights_bytes / MIB:.1f} MiB, and those below "
            f"{MIN_WEIGHTS_BYTES // MIB} are packed whenever they are loaded"
        )
        return
    _make_entries(folder, config)
    if arguments.replace:
        _replace(folder, config)
    packed = [
        packed_folder(folder / graph, folder / config.weights_file, config.weights_hash)
        for graph in config.graphs.values()
    ]
    both = disk_bytes(folder, *packed)
    print(f"packed for this CPU in {packed[0].parent}: {both / MIB:.0f} MiB of disk together with {folder}")


def _make_entries(folder: Path, config: ModelConfig) -> None:
    """Load each graph from its packed weights, which are made if need be."""
    from ..engine.decoder import Decoder
    from ..planning.memory_plan import check_room

    if cache_folder() is None:
        raise InvalidInputError(
            f"{ENVIRONMENT_VARIABLE} is off: there is no place for packed weights. Unset it, or let it name a folder."
        )
    check_room(folder, weight_cache=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", WeightCacheWarning)
        try:
            session = Decoder(folder, weight_cache=True)
            if "decoder_masked" in config.graphs:
                session.masked_runner  # noqa: B018 - loads the graph
        except WeightCacheWarning as warning:
            raise ModelFolderError(str(warning)) from None


def _replace(folder: Path, config: ModelConfig) -> None:
    weights = folder / config.weights_file
    try:
        replace_weights(folder / config.graphs["decoder"], weights, config.weights_hash)
    except OSError as error:
        raise ModelFolderError(
            f"{weights} is as it was, and its weights are packed: {error.strerror or error}. To have them once, the "
            f"model folder and {cache_folder()} must be yours and on one filesystem that has hard links: "
            f"{ENVIRONMENT_VARIABLE} can name another cache folder."
        ) from error
