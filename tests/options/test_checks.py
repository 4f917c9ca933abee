import math
from fractions import Fraction

import numpy as np
import pytest

from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.options import checks as check


@pytest.mark.parametrize("value", [0, 7, np.int32(3), np.int64(9)])
def test_whole_takes_python_and_numpy_integers(value):
    result = check.integer()("top_k", value)
    assert result == value
    assert type(result) is int


@pytest.mark.parametrize("value", [-1, 11, 1.0, "1", None, True, np.float32(1), [1], math.nan])
def test_whole_refuses_everything_else_and_says_what_is_allowed(value):
    with pytest.raises(InvalidInputError, match=r"^top_k is .*, but must be an integer from 0 to 10\.$"):
        check.integer(at_most=10)("top_k", value)


@pytest.mark.parametrize("value", [1, 0.25, np.float32(0.25), np.float64(1.0), Fraction(1, 2)])
def test_number_takes_real_numbers_within_its_bounds(value):
    result = check.number(above=0, at_most=1)("top_p", value)
    assert result == value
    assert type(result) is float


@pytest.mark.parametrize(
    "value", [0, -0.5, 1.01, math.nan, math.inf, -math.inf, np.nan, "0.5", None, True, 1j]
)
def test_number_refuses_everything_else(value):
    with pytest.raises(
        InvalidInputError, match=r"must be a finite number above 0 and at most 1\. Try 0\.9\.$"
    ):
        check.number(above=0, at_most=1, hint="Try 0.9.")("top_p", value)


def test_number_bounds_that_are_and_are_not_included():
    take = check.number(at_least=0, below=1)
    assert take("eta_cutoff", 0) == 0.0
    with pytest.raises(InvalidInputError, match="at least 0 and below 1"):
        take("eta_cutoff", 1)


@pytest.mark.parametrize("value", [0, 1, "true", None, np.True_])
def test_flag_takes_only_bools(value):
    with pytest.raises(InvalidInputError, match="must be True or False"):
        check.flag("do_sample", value)


def test_choice_tells_true_from_one():
    take = check.choice(True, False, "never")
    assert take("early_stopping", "never") == "never"
    assert take("early_stopping", True) is True
    for value in (1, 0, "always", None):
        with pytest.raises(InvalidInputError, match="must be True or False or 'never'"):
            take("early_stopping", value)


def test_text_refuses_the_empty_text():
    assert check.text("stop_strings", "\n") == "\n"
    for value in ("", 5, b"x"):
        with pytest.raises(InvalidInputError, match="a text of at least one character"):
            check.text("stop_strings", value)


def test_texts_are_text():
    with pytest.raises(
        InvalidInputError, match=r"^stop_strings holds '\\ud800' at position 1, .* read it as UTF-8"
    ):
        check.text("stop_strings", "a\ud800")
    with pytest.raises(InvalidInputError, match=r"^choices\[1\] holds"):
        check.texts("choices", ["a", "\ud800"])


MANY = [str(number) for number in range(300_000)]
"""More texts than can be compared pair by pair."""


def test_texts_that_are_too_many_are_refused_at_once():
    with pytest.raises(InvalidInputError, match="holds 1688890 bytes of text; at most 100000 are allowed"):
        check.texts("choices", MANY)


def test_a_repeated_text_is_found_in_one_pass():
    assert check.index_of_repeated(MANY) is None
    assert check.index_of_repeated([*MANY, "7", "8"]) == len(MANY)
    with pytest.raises(InvalidInputError, match=r"^choices holds 'x+\.\.\. twice"):
        check.texts("choices", ["x" * 1000, "y", "x" * 1000])


@pytest.mark.parametrize("value", [[3, 1], (3, 1), np.array([3, 1]), iter([3, 1])])
def test_many_makes_a_tuple(value):
    assert check.many(check.integer())("suppress_tokens", value) == (3, 1)


def test_many_of_nothing_is_none_unless_refused():
    assert check.many(check.integer())("suppress_tokens", []) is None
    with pytest.raises(InvalidInputError, match="at least one entry"):
        check.many(check.integer(), may_be_empty=False)("bad_words_ids[0]", [])


def test_many_names_the_bad_entry():
    with pytest.raises(InvalidInputError, match=r"^suppress_tokens\[1\] is -1"):
        check.many(check.integer())("suppress_tokens", [4, -1])
    for value in (4, "45", {4: 5}):
        with pytest.raises(InvalidInputError, match="must be a list"):
            check.many(check.integer())("suppress_tokens", value)


def test_one_or_many_keeps_one_as_it_is():
    take = check.one_or_many(check.integer())
    assert take("eos_token_id", 2) == 2
    assert take("eos_token_id", [2]) == (2,)
    assert take("eos_token_id", []) is None
    assert check.one_or_many(check.text)("stop_strings", "ab") == "ab"


def test_bias_of_sequences_takes_both_of_hugging_faces_forms():
    normal = (((1, 2), -3.0), ((4,), 5.0))
    assert check.bias_of_sequences("sequence_bias", {(1, 2): -3, (4,): 5.0}) == normal
    assert check.bias_of_sequences("sequence_bias", [[[1, 2], -3.0], [[4], 5]]) == normal
    assert check.bias_of_sequences("sequence_bias", normal) == normal
    assert check.bias_of_sequences("sequence_bias", []) is None


@pytest.mark.parametrize(
    "value",
    [7, "ab", [7], [[[1], 2.0, 3]], [[[], 2.0]], [[[1], math.inf]], [[1, 2.0]], {1: 2.0}, [[[True], 1.0]]],
)
def test_bias_of_sequences_refuses_other_shapes(value):
    with pytest.raises(InvalidInputError, match="sequence_bias"):
        check.bias_of_sequences("sequence_bias", value)
