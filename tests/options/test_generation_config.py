import ast
import dataclasses
import inspect
import itertools
import json
import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabiyarn_edge.errors import InvalidInputError, ModelFolderError
from sabiyarn_edge.options.fields import OptionFields
from sabiyarn_edge.options.generation_config import CALLABLE_OPTIONS, GenerationConfig, OptionWarning
from sabiyarn_edge.options.huggingface import NO_EFFECT, NOT_HERE

NAMES = [field.name for field in dataclasses.fields(GenerationConfig)]

# Every option with a value that is not its default, free of contradictions and of unused options.
SAMPLING = {
    "max_new_tokens": 100,
    "min_new_tokens": 2,
    "max_time": 1.5,
    "eos_token_id": [2, 3],
    "pad_token_id": 0,
    "bos_token_id": 1,
    "stop_strings": ["\n\n", "ọ̀"],
    "include_stop_string": True,
    "do_sample": True,
    "num_beams": 5,
    "num_return_sequences": 2,
    "early_stopping": "never",
    "length_penalty": -1.7,
    "seed": [7, 2**64 - 1],
    "output_scores": True,
    "sequence_bias": {(5, 6): -2.5},
    "repetition_penalty": 2.0,
    "penalty_window": 64,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "no_repeat_ngram_size": 3,
    "bad_words_ids": [[4], [5, 6]],
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 2,
    "suppress_tokens": [8],
    "begin_suppress_tokens": [7],
    "renormalize_logits": True,
    "temperature": 0.9,
    "top_k": 0,
    "top_p": 0.95,
    "min_p": 0.1,
    "typical_p": 0.5,
    "epsilon_cutoff": 1e-4,
    "eta_cutoff": 1e-3,
}
GREEDY = {"max_length": 50, "min_length": 3, "prompt_lookup_num_tokens": 8, "max_matching_ngram_size": 3}
FORMS = [
    {"json_schema": {"type": "object", "properties": {"ọ̀": {"enum": [1, None]}}}},
    {"json_object": True},
    {"regex": "[0-9]+"},
    {"choices": ["ẹ̀ẹ́n", "rárá"]},
    {"grammar": 'start: "a"'},
]


def test_the_samples_above_cover_every_option():
    assert set().union(SAMPLING, GREEDY, *FORMS) == set(NAMES)


# --- defaults ---


def test_defaults_are_hugging_faces_except_where_the_docstring_says_so():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GenerationConfig()
    ours = GenerationConfig()
    differing = {
        name for name in NAMES if hasattr(theirs, name) and getattr(theirs, name) != getattr(ours, name)
    }
    # max_length=20 is how they say "20 new tokens by default".
    assert differing == {"max_length"}
    assert {name for name in NAMES if not hasattr(theirs, name)} == {
        "include_stop_string", "seed", "penalty_window", "frequency_penalty", "presence_penalty",
        "json_schema", "json_object", "regex", "choices", "grammar",
    }  # fmt: skip


def test_every_option_of_hugging_face_is_known_in_one_way():
    transformers = pytest.importorskip("transformers")
    theirs = set(vars(transformers.GenerationConfig()))
    assert theirs - set(NAMES) <= set(NO_EFFECT) | set(NOT_HERE)
    assert not set(NAMES) & (set(NO_EFFECT) | set(NOT_HERE))
    for name, neutral in NOT_HERE.items():
        if name in theirs:
            assert getattr(transformers.GenerationConfig(), name) == neutral


# --- single options ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, r"temperature is 0, but must be .* at least 1e-20\. .*do_sample=False"),
        ({"temperature": 1e-50}, "temperature is 1e-50, but must be a finite number at least 1e-20"),
        ({"temperature": 9e-5, "num_beams": 2, "do_sample": True}, "temperature is 9e-05 .* at least 0.0001"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0}, "top_p is 0, but must be a finite number above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_k": -1}, "top_k is -1, but must be an integer of at least 0. 0 switches it off."),
        ({"top_k": 2.0}, "top_k is 2.0"),
        ({"top_k": True}, "top_k is True"),
        ({"min_p": 1.1}, "min_p is 1.1"),
        ({"typical_p": 0.0}, "typical_p is 0.0"),
        ({"epsilon_cutoff": 1.0}, "epsilon_cutoff is 1.0"),
        ({"eta_cutoff": -0.1}, "eta_cutoff is -0.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"repetition_penalty": 1e-40}, "repetition_penalty is 1e-40, but must be a finite number at least 1e-06"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty is inf"),
        ({"length_penalty": float("-inf")}, "length_penalty is -inf"),
        ({"frequency_penalty": -1e39}, r"must be a finite number at least -1e\+09 and at most 1e\+09"),
        ({"presence_penalty": 1e10}, r"presence_penalty is 1.*, but must be .* at most 1e\+09"),
        ({"sequence_bias": {(1,): 1e38}}, r"in sequence_bias is 1e\+38, but must be .* at most 1e\+09"),
        ({"regex": "\\"}, r"regex is '\\\\', but must be a regular expression\. A backslash at the end"),
        ({"regex": "a\\\\\\"}, "A backslash at the end"),
        ({"json_schema": {"items": [{"pattern": "a\\"}]}}, "a pattern in json_schema is 'a"),
        ({"json_schema": {"properties": {"const": {"pattern": "\\"}}}}, "a pattern in json_schema is "),
        ({"json_schema": '{"patternProperties": {"a\\\\": {}}}'}, "a pattern in json_schema is "),
        (
            {"json_schema": {"const": 2**53 + 1}},
            "a number of const in json_schema is 9007199254740993, but must be from -9007199254740992 to "
            r'9007199254740992\. .* string: "9007199254740993"',
        ),
        ({"json_schema": {"items": {"enum": ["a", {"b": [-(2**63)]}]}}}, "a number of enum in json_schema is -9"),
        *(
            ({"json_schema": {"properties": {"const": {key: 1e20}}}}, f"a number of {key} .* leave {key} out")
            for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
        ),
        ({"json_schema": {"multipleOf": 2**31}}, "has multipleOf 2147483648, but at most 200000 remainders"),
        (
            {"json_schema": {"multipleOf": 9973, "allOf": [{"multipleOf": 9.7}]}},
            r"has multipleOf 9973, 9\.7, 2 times 967381, their least common multiple, but at most 200000",
        ),
        ({"json_schema": {"items": [{"multipleOf": 99999}] * 3}}, "3 times 99999, their"),
        ({"grammar": 'start: %json {"multipleOf": 499} %json {"multipleOf": 251}'}, "2 times 125249, their"),
        (
            {"json_schema": {"patternProperties": {"^a$": {"const": 1}}, "minProperties": 2}},
            "minProperties in json_schema is 2, but must be at most 1. .* required",
        ),
        (
            {"json_schema": {"items": {"required": ["a", "b", "b"], "minProperties": 3}}},
            "minProperties in json_schema is 3, but must be at most 2",
        ),
        (
            {"grammar": 'start: a %json {}\na: %json\n{"const": 9007199254740993} "b"'},
            "a number of const in %json of grammar is 9007199254740993",
        ),
        ({"max_new_tokens": 0}, "max_new_tokens is 0, but must be an integer of at least 1"),
        ({"min_new_tokens": -1}, "min_new_tokens is -1"),
        ({"max_time": 0}, "max_time is 0"),
        ({"do_sample": 1}, "do_sample is 1, but must be True or False"),
        ({"num_beams": 65}, "num_beams is 65, but must be an integer from 1 to 64"),
        ({"early_stopping": "always"}, "early_stopping is 'always'"),
        ({"eos_token_id": -2}, "eos_token_id is -2"),
        ({"eos_token_id": [2, "3"]}, r"eos_token_id\[1\] is '3'"),
        ({"seed": 2**64}, "seed is 18446744073709551616, but must be .* to 18446744073709551615"),
        ({"stop_strings": ["a", ""]}, r"stop_strings\[1\] is ''"),
        ({"bad_words_ids": [[]]}, r"bad_words_ids\[0\] is \[\], but must be a list of at least one entry"),
        ({"bad_words_ids": [3]}, r"bad_words_ids\[0\] is 3, but must be a list"),
        ({"sequence_bias": {(1,): float("inf")}}, "the bias of .1. in sequence_bias is inf"),
    ],
)  # fmt: skip
def test_a_bad_value_says_what_was_given_and_what_is_allowed(options, message):
    with pytest.raises(InvalidInputError, match=message):
        GenerationConfig(**options)
    with pytest.raises(InvalidInputError, match=message):
        GenerationConfig().updated(**options)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"top_k"}))
def test_none_is_the_default(name):
    assert GenerationConfig(**{name: None}) == GenerationConfig()


def test_top_k_of_none_is_off():
    assert GenerationConfig(top_k=None, do_sample=True).top_k is None


def test_a_config_is_immutable_and_keeps_no_callers_list():
    stops = ["a"]
    config = GenerationConfig(stop_strings=stops)
    stops.append("b")
    assert config.stop_strings == ("a",)
    assert hash(config) == hash(GenerationConfig(stop_strings=("a",)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.top_k = 5  # type: ignore[misc]


# --- pairs of options ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_return_sequences": 3, "num_beams": 2}, "num_return_sequences is 3 but num_beams is 2"),
        ({"num_return_sequences": 2}, "num_return_sequences is 2 but do_sample is False and num_beams is 1"),
        ({"prompt_lookup_num_tokens": 4, "num_beams": 2}, "prompt_lookup_num_tokens is 4 and num_beams is 2"),
        ({"prompt_lookup_num_tokens": 4, "do_sample": True, "num_return_sequences": 2},
         "prompt_lookup_num_tokens is 4 and num_return_sequences is 2"),
        ({"min_new_tokens": 5, "max_new_tokens": 4}, "min_new_tokens is 5 but max_new_tokens is 4"),
        ({"min_length": 5, "max_length": 4}, "min_length is 5 but max_length is 4"),
        ({"forced_bos_token_id": 5, "suppress_tokens": [5]}, "forced_bos_token_id is 5 but suppress_tokens"),
        ({"forced_bos_token_id": 5, "begin_suppress_tokens": [4, 5]}, "forced_bos.* but begin_suppress"),
        ({"forced_eos_token_id": [1, 2], "suppress_tokens": [2, 1]}, "forced_eos_token_id is 1, 2 but supp"),
    ],
)  # fmt: skip
def test_a_contradiction_names_both_options(options, message):
    with pytest.raises(InvalidInputError, match=message):
        GenerationConfig(**options)


def test_one_of_several_forced_end_tokens_may_be_suppressed():
    GenerationConfig(forced_eos_token_id=[1, 2], suppress_tokens=[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length_penalty": 1.7}, r"length_penalty \(num_beams is 1\)"),
        ({"early_stopping": True}, r"early_stopping \(num_beams is 1\)"),
        ({"temperature": 0.7, "top_p": 0.9}, r"temperature \(.*\), top_p \(do_sample is False\)"),
        ({"max_length": 9, "max_new_tokens": 4}, r"max_length \(max_new_tokens is given\)"),
        ({"min_length": 9, "min_new_tokens": 4}, r"min_length \(min_new_tokens is given\)"),
        ({"penalty_window": 9}, r"penalty_window \(repetition_penalty is 1\)"),
        ({"max_matching_ngram_size": 3, "prompt_lookup_num_tokens": 0},
         r"max_matching_ngram_size \(prompt_lookup_num_tokens is 0\)"),
        ({"max_matching_ngram_size": 3, "num_beams": 2}, r"max_matching_ngram_size \(num_beams is 2\)"),
        ({"include_stop_string": True}, r"include_stop_string \(stop_strings is not given\)"),
    ],
)  # fmt: skip
def test_an_option_that_changes_nothing_is_a_warning(options, message):
    with pytest.warns(OptionWarning, match=message) as caught:
        GenerationConfig(**options)
    assert caught[0].filename == __file__
    with pytest.warns(OptionWarning, match=message) as caught:
        GenerationConfig().updated(**options)
    assert caught[0].filename == __file__


def test_updated_warns_only_of_what_it_was_given():
    beams = GenerationConfig(num_beams=4, length_penalty=2.0)
    assert beams.updated(num_beams=1).length_penalty == 2.0  # pytest makes any warning an error
    assert beams.updated(num_beams=1).unused_options() == {"length_penalty": "num_beams is 1"}


# --- updated ---


def test_updated_changes_what_it_is_given_and_nothing_else():
    config = GenerationConfig(**SAMPLING)
    changed = config.updated(top_p=0.5, eos_token_id=None)
    assert (changed.top_p, changed.eos_token_id) == (0.5, None)
    assert changed.updated(top_p=0.95, eos_token_id=[2, 3]) == config
    assert config.updated() is config


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("temprature", "temperature"), ("max_tokens", "max_new_tokens"), ("beams", "num_beams"),
        ("stop", "stop_strings"), ("repeat_penalty", "repetition_penalty"), ("topp", "top_p"),
    ],
)  # fmt: skip
def test_an_unknown_option_is_told_its_nearest_known_name(wrong, nearest):
    with pytest.raises(InvalidInputError, match=f"^unknown option {wrong}; did you mean {nearest}\\?$"):
        GenerationConfig().updated(**{wrong: 1})


def test_all_unknown_options_are_named_at_once():
    with pytest.raises(InvalidInputError, match=r"unknown option zzz\. unknown option temprature;"):
        GenerationConfig().updated(zzz=1, temprature=2)


@pytest.mark.parametrize("name", CALLABLE_OPTIONS)
def test_functions_belong_to_the_call(name):
    with pytest.raises(InvalidInputError, match=f"{name} is a function: give it to generate"):
        GenerationConfig().updated(**{name: print})


def test_hugging_faces_other_options_are_named_as_such():
    with pytest.raises(
        InvalidInputError, match="use_cache is an option of Hugging Face's that changes nothing"
    ):
        GenerationConfig().updated(use_cache=True)
    with pytest.raises(InvalidInputError, match=r"num_beam_groups .* not implemented here"):
        GenerationConfig().updated(num_beam_groups=2)


@pytest.mark.parametrize(
    "options",
    [
        {"regex": "a\\\\"},
        {"json_schema": {"pattern": "a\\\\"}},
        {"json_schema": {"const": {"pattern": "\\"}}},
        {"json_schema": {"properties": {"pattern": {"type": "string"}, "a\\": {}}}},
    ],
)
def test_backslashes_that_escape_or_are_data(options):
    GenerationConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"json_schema": {"const": 2**53, "enum": [-(2**53), str(2**63), True, None]}},
        {"json_schema": {"default": 2**63, "properties": {"minimum": {"examples": [2**63]}}}},
        {"grammar": 'start: %json {"minimum": 9007199254740992} "%json {"'},
        {"json_schema": {"items": [{"multipleOf": 86400}, {"multipleOf": 0.01}]}},
    ],
)
def test_numbers_that_doubles_hold_or_that_decide_nothing(options):
    GenerationConfig(**options)


@pytest.mark.parametrize("least", [{"minProperties": 1}, {"minProperties": 2, "required": ["a", "b"]}])
def test_least_properties_that_repeated_names_cannot_meet(least):
    GenerationConfig(json_schema={"type": "object", **least})


# --- files ---


@pytest.mark.parametrize(
    "options",
    [SAMPLING, GREEDY, {}, *FORMS],
    ids=["sampling", "greedy", "defaults", *(next(iter(f)) for f in FORMS)],
)
def test_round_trip_through_a_folder(tmp_path, options):
    config = GenerationConfig(**options)
    config.save(tmp_path)
    assert GenerationConfig.load(tmp_path) == config
    assert set(json.loads((tmp_path / "generation_config.json").read_text("utf-8"))) == set(options)


@given(
    temperature=st.floats(min_value=1e-4, allow_infinity=False, allow_nan=False),
    length_penalty=st.floats(allow_infinity=False, allow_nan=False),
    seed=st.none() | st.integers(0, 2**64 - 1) | st.lists(st.integers(0, 2**64 - 1), min_size=1),
    stops=st.none() | st.lists(st.text(min_size=1), min_size=1),
    top_k=st.none() | st.integers(0, 60000),
)
def test_round_trip_through_json_is_exact(temperature, length_penalty, seed, stops, top_k):
    config = GenerationConfig(
        do_sample=True, num_beams=2, temperature=temperature, length_penalty=length_penalty, seed=seed,
        stop_strings=stops, top_k=top_k,
    )  # fmt: skip
    assert GenerationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_folder_without_the_file_has_the_defaults(tmp_path):
    assert GenerationConfig.load(tmp_path) == GenerationConfig()


def test_hugging_faces_file_is_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    shared = {
        name: value
        for name, value in SAMPLING.items()
        if name in vars(transformers.GenerationConfig()) and name != "sequence_bias"
    }
    theirs = transformers.GenerationConfig(
        **shared, sequence_bias=[[[5, 6], -2.5]], return_dict_in_generate=True
    )
    theirs.save_pretrained(tmp_path)
    assert GenerationConfig.load(tmp_path) == GenerationConfig(**shared, sequence_bias={(5, 6): -2.5})


def test_a_files_unused_options_are_no_warning():
    assert GenerationConfig.from_dict({"temperature": 0.6, "top_p": 0.9}).temperature == 0.6


def test_keys_that_are_left_out_are_reported_together():
    values = {
        "top_k": 5, "temprature": 1, "zzz": 0, "num_beam_groups": 3,
        "transformers_version": "4.57.6", "diversity_penalty": 0.0, "penalty_alpha": None,
    }  # fmt: skip
    expected = (
        "some.json: left out temprature (unknown; did you mean temperature?), zzz (unknown), "
        "num_beam_groups=3 (Hugging Face's, not implemented here)."
    )
    with pytest.warns(OptionWarning, match=f"^{re.escape(expected)}$"):
        config = GenerationConfig.from_dict(values, source="some.json")
    assert config.top_k == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"do_sample": true, "top_p": 7}', r"generation_config\.json: top_p is 7"),
        ('{"top_p": 0.', r"generation_config\.json is not valid JSON"),
        ('{"do_sample": true, "temperature": NaN}', "temperature is nan"),
        ("[1]", "holds a list; a JSON object"),
        ("", "is not valid JSON"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(ModelFolderError, match=message):
        GenerationConfig.load(tmp_path)


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "generation_config.json").mkdir()
    with pytest.raises(ModelFolderError, match=r"cannot read .*generation_config\.json"):
        GenerationConfig.load(tmp_path)


# --- what the options come to ---


def test_one_or_many_ids_become_a_tuple():
    assert GenerationConfig().eos_token_ids == ()
    assert GenerationConfig(eos_token_id=2).eos_token_ids == (2,)
    assert GenerationConfig(eos_token_id=[2, 5]).eos_token_ids == (2, 5)
    assert GenerationConfig(stop_strings="ab").stop_texts == ("ab",)


def test_padding_is_the_first_end_token_unless_given():
    assert GenerationConfig(eos_token_id=[7, 5]).padding_token_id == 7
    assert GenerationConfig(eos_token_id=7, pad_token_id=0).padding_token_id == 0
    assert GenerationConfig().padding_token_id == 0


def test_every_option_has_a_docstring_of_its_own():
    [body] = [n.body for n in ast.parse(inspect.getsource(OptionFields)).body if isinstance(n, ast.ClassDef)]
    for statement, following in itertools.pairwise(body):
        if isinstance(statement, ast.AnnAssign):
            assert isinstance(following, ast.Expr), ast.unparse(statement)


def test_no_warning_reaches_a_caller_of_the_defaults():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GenerationConfig()
        GenerationConfig(**SAMPLING)
        GenerationConfig(**GREEDY)


@pytest.mark.parametrize(
    "value", [np.zeros((2, 2)), -(10**5000), [np.zeros(2)]], ids=["array", "huge", "list"]
)
def test_any_value_of_an_option_that_is_not_here_is_left_out(value):
    with pytest.warns(OptionWarning, match="guidance_scale=.* not implemented here"):
        assert GenerationConfig.from_dict({"guidance_scale": value}) == GenerationConfig()
