"""One local Ray for these tests, which need the extra [ray]. `python -m tests.campaigns.ray_jobs` is the long run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    from tests.campaigns.ray_jobs import local_ray

    with local_ray():
        yield
