"""sabiyarn-edge install: puts a model folder in its place in one step, also under programs that run the old one."""

from __future__ import annotations

import argparse
import errno
import shutil
from pathlib import Path

from ..errors import InvalidInputError, ModelFolderError
from ..model_folder.config import ModelConfig
from ..model_folder.weights_file import hash_weights_file
from ..system.atomic_write import atomic_folder
from ..system.regular_file import check_regular_file
from .parser import Parser

__all__ = ["add_to", "install", "run"]

EPILOG = """\
A running program maps the weights of its model. Copying over them in place ends it (SIGBUS), and a copy that is cut
short leaves a broken model. This command copies beside DEST, checks every byte, and renames: a program that runs the
old model keeps it until it loads anew. A link to a file becomes a file; a link to a folder is refused.
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "install",
        help="put a model folder in its place, in one step",
        description="Copies the model in FOLDER to DEST, checks the copy, and replaces a model that is there.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("folder", metavar="FOLDER", help="model folder, as `sabiyarn-edge export` wrote it")
    parser.add_argument("dest", metavar="DEST", help="where programs look for the model")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from ..generator import find_model

    install(find_model(arguments.folder), Path(arguments.dest))


def install(folder: Path, dest: Path) -> None:
    """Replace `dest` by a copy of a model folder, or make it.

    Raises:
        ModelFolderError: a file of the model is missing or damaged, or the copy cannot be written; `dest` is as it was.
        InvalidInputError: `dest` holds something else than a model, one folder lies in the other, or `folder` holds a
            link to a folder.
    """
    source, target = folder.resolve(), dest.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise InvalidInputError(f"{folder} and {dest} lie in one another. Give another DEST.")
    if target.exists():
        try:
            ModelConfig.load(target)
        except ModelFolderError as error:
            raise InvalidInputError(
                f"{dest} is there, and is no model ({error}). Remove it, or give another DEST."
            ) from error
    config = ModelConfig.load(source)
    try:
        with atomic_folder(target) as copy:
            for path in sorted(source.rglob("*")):
                place = copy / path.relative_to(source)
                if path.is_dir() and path.is_symlink():
                    raise InvalidInputError(
                        f"{path} is a link to a folder, which is not followed. Remove it, or copy the folder there."
                    )
                if path.is_dir():
                    place.mkdir()
                    continue
                check_regular_file(path)
                shutil.copyfile(path, place)
            try:
                config.read_graph(copy)
                found = hash_weights_file(copy / config.weights_file)
            except ModelFolderError as error:  # the copy goes away
                raise ModelFolderError(str(error).replace(str(copy), str(folder))) from error
            if found != config.weights_hash:
                raise ModelFolderError(
                    f"{folder / config.weights_file} is damaged: its tensors have the hash {found[:12]}..., and "
                    f"config.json says {config.weights_hash[:12]}.... Copy or export the model again."
                )
    except OSError as error:
        raise ModelFolderError(_explain(error, dest)) from error


def _explain(error: OSError, dest: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk became full while {dest} was written, which is as it was. Free some space."
    where = f" ({error.filename})" if error.filename else ""
    return f"cannot copy the model to {dest}: {error.strerror or error}{where}. It is as it was."
