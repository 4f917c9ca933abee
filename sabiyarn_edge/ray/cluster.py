"""Connects to a Ray cluster, or starts one on this machine, in bounded time."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import ray

from ..errors import JobError

__all__ = ["connected"]

_ANSWER_SECONDS = 30.0
"""For a cluster to say that it is healthy; a program is started to ask it."""
_OBJECT_STORE_BYTES = 128 * 2**20
"""Of a cluster on this machine. Lines and records go past it: they are small."""


@contextlib.contextmanager
def connected(address: str | None, *, cpus: int) -> Iterator[None]:
    """Be connected to a cluster; one that is connected already is taken, and left connected.

    Args:
        address: "auto", host:port or ray://host:port; None: RAY_ADDRESS, or else a cluster of this process on this
            machine.
        cpus: that a cluster on this machine has.

    Raises:
        JobError: nothing answers at the address, or Ray does not start.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    else:
        if address != "auto" and "://" not in address:
            _check_answers(address)
        options["address"] = address
    try:
        ray.init(**options)
    except Exception as error:  # its classes differ by the kind of address
        where = "here" if address is None else f"at {address}"
        reason = " ".join(str(error).split())
        raise JobError(
            f"no Ray cluster {where}: {reason}. Start one with `ray start --head`, and give its address, or leave the "
            "address out."
        ) from error
    try:
        with contextlib.redirect_stdout(
            sys.stderr
        ):  # Ray prints that an actor was lost, and records may go there
            yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Ask a cluster whether it is healthy: ray.init() tries for two minutes, and then ends the process."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        healthy = subprocess.run(command, capture_output=True, timeout=_ANSWER_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        healthy = False
    if not healthy:
        raise JobError(
            f"no Ray cluster answers at {address}. Give host:port of its head node (6379 by default), and look with "
            f"`ray status --address {address}`."
        )
