"""Requests alone and in mixtures. More of them: python -m tests.campaigns.server_invariance."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from sabiyarn_edge import EdgeGenerator
from tests.campaigns.server_invariance import ARGUMENTS, differences
from tests.export.models import Exported
from tests.server.conftest import Server
from tests.server.random_requests import draw_request

REQUESTS, SEED = 40, 3


def test_an_answer_does_not_depend_on_what_runs_beside_it(
    serve: Callable[..., Server], tagged: Exported
) -> None:
    rng = random.Random(SEED)
    requests = [draw_request(rng) for _ in range(REQUESTS)]
    generator = EdgeGenerator.from_pretrained(tagged.folder, num_threads=1)
    server = serve(*ARGUMENTS[2:], "--model", f"tagged={tagged.folder}")
    server.wait_until_ready()
    assert asyncio.run(differences(server.url, generator, requests, 1, rng)) == []
