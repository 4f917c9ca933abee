"""Jobs, datasets and the server on a Ray cluster (extra [ray]). Nothing else of this package imports Ray."""

from __future__ import annotations

import os

from ..errors import JobError
from ..system.installation import install_command

# Ray reports its use to its maker unless this is 0 when a cluster starts.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import pyarrow  # noqa: F401 - of ray[data]
    import ray  # noqa: F401
except ModuleNotFoundError as error:
    raise JobError(f"Ray is not installed ({error.name} is missing): {install_command('ray')}") from error

from .actors import RayActors
from .mapper import BatchMapper

__all__ = ["BatchMapper", "RayActors"]
