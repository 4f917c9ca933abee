"""The mutants of tests.campaigns.mutants still have their places; whether tests notice them, the campaign tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.mutants.masks_and_calls import MASKS_AND_CALLS
from tests.campaigns.mutants.mutant import Mutant
from tests.campaigns.mutants.native import NATIVE
from tests.campaigns.mutants.python import PYTHON

ROOT = Path(__file__).parents[2]
if not (ROOT / "sabiyarn_edge").is_dir():
    pytest.skip("needs a checkout", allow_module_level=True)
MUTANTS = [*PYTHON, *NATIVE, *MASKS_AND_CALLS]


def test_there_are_enough_of_them_and_no_two_are_the_same() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) >= 60
    assert len({*names}) == len(names)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_has_its_place(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert mutant.applied_to(text) != text
    assert all((ROOT / test).exists() for test in mutant.tests)
