"""The server's application as a Ray Serve deployment: replicas on many nodes behind one address."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ray import serve

from ..errors import JobError
from ..generator import EdgeGenerator
from ..options.checks import integer
from ..options.generation_config import OptionWarning
from ..system.installation import install_command

try:
    from starlette.types import ASGIApp

    from ..server.app import make_app
    from ..server.service import ServedModel, Service, Settings
except ModuleNotFoundError as error:
    raise JobError(
        f"the deployment needs the server, and {error.name} is missing: {install_command('ray')}"
    ) from error

__all__ = ["deployment"]

_TIMEOUT_SECONDS = 300.0
_ROWS_WAITING = 4
"""Rows that wait for each that runs; Ray Serve keeps further requests at its door."""


def deployment(
    model: str | Path = "nano",
    *,
    name: str | None = None,
    replicas: int = 1,
    num_cpus: int = 1,
    parallel: int = 16,
    timeout: float = _TIMEOUT_SECONDS,
    api_keys: tuple[str, ...] = (),
    allowed_hosts: tuple[str, ...] = (),
    **load: Any,
) -> serve.Application:
    """Make what `ray.serve.run` takes: the endpoints of `sabiyarn-edge serve`, in as many replicas as are wanted.

    Args:
        model: a model folder that every node has under this path, or nano.
        name: what requests call it; None: the folder's.
        replicas: processes that load it.
        num_cpus: of each; it computes with so many threads.
        parallel: most rows that run at once in each.
        timeout: seconds after which a request ends, waiting included.
        api_keys: of which clients must send one; none: nobody must.
        allowed_hosts: names by which clients reach it without keys, beside addresses and names without a dot.
        load: further arguments of `EdgeGenerator.from_pretrained`, but num_threads and max_batch_size.

    Returns:
        The application, not yet running.

    Raises:
        InvalidInputError: an argument is not allowed.
    """
    at_least_one = integer(at_least=1)
    replicas, num_cpus = at_least_one("replicas", replicas), at_least_one("num_cpus", num_cpus)
    settings = Settings(
        parallel=at_least_one("parallel", parallel),
        max_queue=parallel * _ROWS_WAITING,
        timeout=timeout,
        api_keys=tuple(api_keys),
        allowed_hosts=tuple(allowed_hosts),
    )
    folder = Path(model).absolute() if Path(model).is_dir() else Path(model)
    called = name or folder.name
    arguments = {**load, "path": str(folder), "num_threads": num_cpus, "max_batch_size": parallel}

    def build() -> ASGIApp:
        """Load the model; called in each replica before it takes requests."""
        warnings.simplefilter("ignore", OptionWarning)  # clients send options that change nothing
        service = Service([called], dict, settings)
        generator = EdgeGenerator.from_pretrained(**arguments)
        service.models, service.state = {called: ServedModel(called, generator, settings)}, "ready"
        return make_app(service, logs=False)

    return serve.deployment(
        serve.ingress(build)(),
        name="sabiyarn_edge",
        num_replicas=replicas,
        max_ongoing_requests=parallel * (1 + _ROWS_WAITING),
        ray_actor_options={"num_cpus": num_cpus},
    ).bind()
