"""Messages of errors are within bounds and can be written, whatever they quote."""

from __future__ import annotations

import pickle

from sabiyarn_edge.errors import InvalidInputError, SabiYarnError, bounded


def test_long_messages_keep_their_begin_and_end() -> None:
    message = str(InvalidInputError(f"choices holds {'x' * 10**6}. Leave it out."))
    assert len(message) == 4000
    assert message.startswith("choices holds xxx")
    assert message.endswith("xxx. Leave it out.")
    assert bounded("x" * 4000) == "x" * 4000


def test_half_surrogate_pairs_are_written_out() -> None:
    assert str(SabiYarnError("the key \ud800")) == "the key \\ud800"


def test_errors_keep_what_they_were_made_of() -> None:
    assert SabiYarnError("a", 3).args == ("a", 3)
    assert pickle.loads(pickle.dumps(SabiYarnError("a"))).args == ("a",)
