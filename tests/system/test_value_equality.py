"""== of what holds arrays."""

from __future__ import annotations

import copy
import dataclasses
import operator
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.system.value_equality import ValueEquality


@dataclasses.dataclass(frozen=True, eq=False)
class Held(ValueEquality):
    array: Any
    other: Any = None
    ignored: Any = dataclasses.field(default=0, compare=False)


class OtherClass(Held):
    pass


SAME = [
    (Held(np.arange(6)), Held(np.arange(6), ignored=1)),
    (Held([np.arange(2), np.arange(3)]), Held([np.arange(2), np.arange(3)])),
    (Held(None, "a"), Held(None, "a")),
    (Held(np.zeros(0)), Held(np.zeros(0))),
]
DIFFERENT = [
    (Held(np.arange(6)), Held(np.arange(6) + 1)),
    (Held(np.arange(6)), Held(np.arange(6).reshape(2, 3))),
    (Held(np.arange(1)), Held(np.arange(6))),  # which broadcast
    (Held(np.arange(2)), Held([0, 1])),
    (Held([0, 1]), Held(np.arange(2))),
    (Held([np.arange(2)]), Held([np.arange(2), np.arange(2)])),
    (Held(np.arange(2)), Held(None)),
    (Held(np.arange(2), 1), Held(np.arange(2), 2)),
    (Held(np.arange(2)), OtherClass(np.arange(2))),
    (Held(np.arange(2)), "text"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equal_by_value(one: Any, other: Any) -> None:
    assert one == other
    assert operator.ne(one, other) is False


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_by_value(one: Any, other: Any) -> None:
    assert one != other
    assert operator.eq(one, other) is False


def test_there_is_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable type: 'Held'"):
        hash(Held(1))


def test_results_are_equal_whatever_time_they_took(text_model: Path) -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 6,
        "do_sample": True,
        "output_scores": True,
        "num_return_sequences": 2,
    }
    with EdgeGenerator.from_pretrained(text_model, num_threads=1) as generator:
        one, again, other = (generator.generate([1, 2], seed=seed, **options) for seed in (3, 3, 4))
        assert one == again == copy.deepcopy(one) == pickle.loads(pickle.dumps(one))
        assert one.timings != again.timings
        assert one != other
        assert one in [other, again]
        first, second, third = generator.score([[1, 2, 3], [1, 2, 3], [1, 2, 4]])
        assert first == second != third


def test_what_the_torch_model_gives_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from sabiyarn_edge.modeling import GPTJXGenerateOutput, GPTJXOutput

    def output(token: int, device: str = "cpu") -> GPTJXGenerateOutput:
        return GPTJXGenerateOutput(
            sequences=torch.tensor([[1, token]], device=device),
            lengths=[2],
            truncated_tokens=[0],
            finish_reasons=["length"],
            sequences_scores=None,
            scores=None,
        )

    assert output(2) == output(2) != output(3)
    assert output(2) != output(2, "meta")
    logits = torch.zeros(1, 2, 3)
    one, other = GPTJXOutput(logits), GPTJXOutput(logits)
    assert one == one and one != other and len({one, other}) == 2
