"""sabiyarn-edge generate against a tiny model, in this process; test_process.py runs it as users do."""

from __future__ import annotations

import json
import re
import shutil
import types

import pytest

from sabiyarn_edge import EdgeGenerator, GenerationConfig
from sabiyarn_edge.text.streaming import StreamedToken
from tests.cli.conftest import BLOCK_SIZE, VOCAB_SIZE
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint
from tests.export.models import export_tiny

PROMPT = "Gbogbo ènìyàn"


@pytest.fixture(scope="module")
def generator(text_model):
    return EdgeGenerator.from_pretrained(text_model, num_threads=1)


# --- what is printed ---


def test_text_goes_to_stdout_and_speed_to_stderr(run, text_model, generator):
    ran = run("generate", "--model", text_model, PROMPT, "--max-new-tokens", "20")
    assert ran.code == 0
    assert ran.out == generator.generate(PROMPT, max_new_tokens=20).text + "\n"
    assert "20 tokens" in ran.err
    assert "tokens/s" in ran.err
    assert "first token after" in ran.err
    assert "ended by length" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_quiet_says_nothing(run, text_model):
    assert run("generate", "--model", text_model, PROMPT, "--max-new-tokens", "2", "--quiet").err == ""


def test_json_is_one_object(run, text_model, generator):
    ran = run("generate", "--model", text_model, PROMPT, "--max-new-tokens", "5", "--json", "--quiet")
    expected = generator.generate(PROMPT, max_new_tokens=5)
    found = json.loads(ran.out)
    assert found["texts"] == expected.texts
    assert found["generated"] == expected.generated
    assert found["prompt_lengths"] == expected.prompt_lengths
    assert found["finish_reasons"] == ["length"]
    assert found["timings"]["prefill_tokens"] == expected.prompt_lengths[0]
    assert found["timings"]["decode_tokens_per_second"] > 0


def test_json_holds_scores_when_asked(run, text_model):
    ran = run(
        "generate",
        "--model",
        text_model,
        PROMPT,
        "--max-new-tokens",
        "3",
        "--json",
        "--option",
        "output_scores=true",
    )
    [scores] = json.loads(ran.out)["scores"]
    assert len(scores) == 3
    assert all(score <= 0 for score in scores)


def test_a_session_goes_on_where_it_ended(run, text_model, generator, tmp_path):
    file = tmp_path / "chat.session"
    said = []
    for prompt in (PROMPT, " two", ""):
        ran = run(
            "generate", "--model", text_model, "--session", file, prompt, "--max-new-tokens", "4", "--json"
        )
        said.append(json.loads(ran.out))
    session = generator.session(PROMPT)
    expected = [session.generate(turn, max_new_tokens=4) for turn in ("", " two", "")]
    assert [found["generated"] for found in said] == [result.generated for result in expected]
    assert [found["timings"]["reused_tokens"] for found in said] == [
        0,
        *(result.prompt_lengths[0] - added for result, added in zip(expected[1:], (4, 1), strict=True)),
    ]
    streamed = run(
        "generate", "--model", text_model, "--session", file, "", "--max-new-tokens", "4", "--quiet"
    )
    assert streamed.out == session.generate(max_new_tokens=4).text + "\n"
    assert generator.load_session(file).tokens == session.tokens


def test_a_chat_is_no_session_and_stays_as_it_is(run, text_model, generator, tmp_path):
    file = tmp_path / "chat"
    generator.session(PROMPT).save(file, attachment='{"chat": {"messages": []}}')
    before = file.read_bytes()
    ran = run("generate", "--model", text_model, "--session", file, " two", "--max-new-tokens", "1")
    assert ran.code == 1
    assert "chat holds a chat" in ran.err
    assert file.read_bytes() == before


def test_what_the_user_wrote_stays_in_errors(run):
    for flag, name in (("--max-new-tokens", "max_new_tokens"), ("--kv-window", "kv_window")):
        ran = run("generate", "--model", f"my {name} folder", flag, "5", "x")
        assert f"my {name} folder" in ran.err


def test_a_session_behind_a_link_stays_there(run, text_model, generator, tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    link.symlink_to(target)
    lengths = []
    for _ in range(2):
        ran = run("generate", "--model", text_model, "--session", link, PROMPT, "--max-new-tokens", "2")
        assert ran.code == 0
        lengths.append(len(generator.load_session(target).tokens))
    assert link.is_symlink()
    assert lengths[1] > lengths[0]
    link.unlink()
    link.symlink_to(tmp_path / "missing" / "target")
    assert "no folder that can be written to" in run("generate", "--session", link, PROMPT).error


def test_a_session_that_cannot_go_on_is_refused(run, text_model, tmp_path):
    file = tmp_path / "chat.session"
    several = ["--session", file, "--do-sample", "--num-return-sequences", "2"]
    assert "--session goes on with one text" in run("generate", "--model", text_model, PROMPT, *several).error
    assert not file.exists()
    file.write_bytes(b"GGUF")
    ran = run("generate", "--model", text_model, PROMPT, "--session", file)
    assert "is not a session file" in ran.error
    assert file.read_bytes() == b"GGUF"


def test_ids_in_and_out(run, text_model, generator):
    expected = " ".join(map(str, generator.generate([5, 17, 9], max_new_tokens=4).generated[0])) + "\n"
    for prompt in ("5 17 9", "5,17,9", "[5, 17, 9]"):
        ran = run("generate", "--model", text_model, "--ids", prompt, "--max-new-tokens", "4", "--quiet")
        assert (ran.code, ran.out) == (0, expected)


def test_a_model_without_a_tokenizer_takes_ids(run, model):
    (model / "tokenizer.json").unlink()
    assert run("generate", "--model", model, "--ids", "5 17", "--max-new-tokens", "2", "--quiet").code == 0
    ran = run("generate", "--model", model, PROMPT)
    assert ran.code == 2
    assert "no tokenizer.json" in ran.error


def test_several_outputs_are_parted_by_a_line(run, text_model, generator):
    options = {"do_sample": True, "num_return_sequences": 3, "seed": 7, "max_new_tokens": 6}
    ran = run(
        "generate", "--model", text_model, PROMPT, "--do-sample", "--num-return-sequences", "3", "--seed", "7",
        "--max-new-tokens", "6", "--quiet",
    )  # fmt: skip
    assert ran.out == "\n---\n".join(generator.generate(PROMPT, **options).texts) + "\n"


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--num-beams", "5", "--length-penalty", "1.2"], {"num_beams": 5, "length_penalty": 1.2}),
        (["--repetition-penalty", "1.5"], {"repetition_penalty": 1.5}),
        (["--do-sample", "--seed", "3"], {"do_sample": True, "seed": 3}),
    ],
    ids=["beams", "penalty", "sampled"],
)
def test_the_stream_is_what_generate_gives(run, text_model, generator, arguments, options):
    ran = run("generate", "--model", text_model, PROMPT, "--max-new-tokens", "15", "--quiet", *arguments)
    assert ran.out == generator.generate(PROMPT, max_new_tokens=15, **options).text + "\n"


def test_text_ends_before_a_stop_string(run, text_model, generator):
    whole = generator.generate(PROMPT, max_new_tokens=30).text
    stop = re.findall("[A-Za-z]{2}", whole)[-1]  # the random model's text also holds bytes that are no text
    ran = run("generate", "--model", text_model, PROMPT, "--max-new-tokens", "30", "--stop", stop)
    assert ran.out == whole[: whole.index(stop)] + "\n"
    assert "ended by stop" in ran.err
    assert (
        stop
        in run(
            "generate", "--model", text_model, PROMPT, "--stop", stop, "--option", "include_stop_string=true"
        ).out
    )


# --- how options arrive: a generator that only records ---


class Recorder:
    """Stands in for EdgeGenerator: keeps what it is called with and streams three pieces."""

    tokenizer = None  # so there is no tasks.json that tells known prompts from others

    def __init__(self, config=None, fails=None):
        self.generation_config = config or GenerationConfig(eos_token_id=3)
        self.fails = fails

    def __call__(self, path, **loading):
        self.path = path
        return self

    def stream(self, inputs, config):
        self.inputs, self.config = inputs, config
        return RecordedStream(self.fails)


class RecordedStream:
    def __init__(self, fails):
        self.fails = fails
        timings = types.SimpleNamespace(
            prefill_tokens=2,
            prefill_seconds=0.5,
            time_to_first_token=0.25,
            decode_tokens_per_second=4.0,
            reruns=0,
        )
        self.result = types.SimpleNamespace(timings=timings, generated=[[7, 8, 9]], finish_reasons=["eos"])

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.closed = True

    def __iter__(self):
        for index, text in enumerate(["Ọ̀", "", "rọ̀"]):
            if index == 2 and self.fails:
                raise self.fails
            yield StreamedToken(text=text, token_id=7 + index, index=index)


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("sabiyarn_edge.generator.EdgeGenerator.from_pretrained", recorder)
    return recorder


def test_without_options_the_models_own_hold(run, recorder):
    ran = run("generate", PROMPT)
    assert (ran.code, ran.out) == (0, "Ọ̀rọ̀\n")
    assert ran.err == (
        "[2 prompt tokens in 0.50 s; first token after 250 ms; 3 tokens; 4.0 tokens/s; ended by eos]\n"
    )
    assert (recorder.path, recorder.inputs) == ("nano", PROMPT)
    assert recorder.config is recorder.generation_config


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--max-new-tokens", "9", "--min-new-tokens", "2"], {"max_new_tokens": 9, "min_new_tokens": 2}),
        (["--do-sample", "--temperature", "0.7"], {"do_sample": True, "temperature": 0.7}),
        (["--do-sample", "--top-k", "5", "--top-p", ".9", "--min-p", "0.1"],
         {"do_sample": True, "top_k": 5, "top_p": 0.9, "min_p": 0.1}),
        (["--num-beams", "5", "--length-penalty", "-1.5"], {"num_beams": 5, "length_penalty": -1.5}),
        (["--seed", "18446744073709551615"], {"seed": 2**64 - 1}),
        (["--repetition-penalty", "2", "--no-repeat-ngram-size", "3"],
         {"repetition_penalty": 2.0, "no_repeat_ngram_size": 3}),
        (["--max-time", "1.5"], {"max_time": 1.5}),
        (["--eos-token-id", "2,7"], {"eos_token_id": [2, 7]}),
        (["--eos-token-id", "none"], {"eos_token_id": None}),
        (["--stop", "\n\n", "--stop", "</s>"], {"stop_strings": ["\n\n", "</s>"]}),
        (["--option", "typical_p=0.5", "--do-sample"], {"do_sample": True, "typical_p": 0.5}),
        (["--option", "bad_words_ids=[[4],[5,6]]"], {"bad_words_ids": [[4], [5, 6]]}),
        (["--option", "early_stopping=never", "--num-beams", "2"], {"early_stopping": "never", "num_beams": 2}),
        (["--option", "early_stopping=True", "--num-beams", "2"], {"early_stopping": True, "num_beams": 2}),
        (["--option", "stop_strings=a=b"], {"stop_strings": "a=b"}),
        (["--option", "eos_token_id=None"], {"eos_token_id": None}),
    ],
)  # fmt: skip
def test_options_reach_the_generator(run, recorder, arguments, options):
    ran = run("generate", PROMPT, *arguments)
    assert ran.code == 0, ran.err
    assert recorder.config == recorder.generation_config.updated(**options)


def test_an_option_that_changes_nothing_is_a_line_on_stderr(run, recorder):
    ran = run("generate", PROMPT, "--temperature", "0.5", "--quiet")
    assert (ran.code, ran.out) == (0, "Ọ̀rọ̀\n")
    assert ran.err == (
        "sabiyarn-edge: warning: these options change nothing: temperature (do_sample is False).\n"
    )


def test_ctrl_c_ends_the_line_and_exits_with_130(run, recorder):
    recorder.fails = KeyboardInterrupt()
    ran = run("generate", PROMPT)
    assert (ran.code, ran.out, ran.err) == (130, "Ọ̀\n", "")


def test_a_lack_of_memory_is_one_line(run, recorder):
    recorder.fails = MemoryError()
    ran = run("generate", PROMPT)
    assert ran.code == 1
    assert "not enough memory" in ran.error


# --- bad input: one line, the right exit code ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "the prompt is empty"),
        (["--ids", ""], "the list of prompts is empty"),
        (["--ids", f"5 {VOCAB_SIZE}"], f"token id {VOCAB_SIZE} at index 1; ids of this model are 0 to 319"),
        (["--ids", "5 -1"], "token id -1"),
        (["--ids", "5 x"], "with --ids the prompt is a list of ids, like '5 17 9', not '5 x'"),
        (["--ids", " ".join(["7"] * BLOCK_SIZE)], f"{BLOCK_SIZE} tokens; with at most {BLOCK_SIZE} positions"),
        (["--ids", "7 7", "--max-new-tokens", "95"], "2 tokens and --max-new-tokens is 95: 97 positions"),
        ([PROMPT, "--max-new-tokens", "0"], "--max-new-tokens is 0, but must be an integer of at least 1"),
        ([PROMPT, "--temperature", "0"], "temperature is 0.0, but must be a finite number at least 1e-20"),
        ([PROMPT, "--temperature", "-1"], "temperature is -1.0"),
        ([PROMPT, "--temperature", "nan"], "temperature is nan"),
        ([PROMPT, "--top-p", "1.5"], "--top-p is 1.5, but must be a finite number above 0 and at most 1"),
        ([PROMPT, "--top-p", "0"], "--top-p is 0.0"),
        ([PROMPT, "--top-k", "-1"], "--top-k is -1, but must be an integer of at least 0"),
        ([PROMPT, "--num-return-sequences", "2"], "--num-return-sequences is 2 but do_sample is False"),
        ([PROMPT, "--option", "temprature=1"], "unknown option temprature; did you mean temperature?"),
        ([PROMPT, "--option", "top_k=high"], "top_k is 'high', but must be an integer"),
        ([PROMPT, "--option", "seed=" + "[" * 100_000], "seed is '[[["),
        ([PROMPT, "--option", "top_k=1", "--top-k", "2"], "is given twice"),
        ([PROMPT, "--option", "logits_processor=x"], "logits_processor is a function"),
        ([PROMPT, "--option", "suppress_tokens=[320]"],
         "suppress_tokens holds 320, but the vocabulary has ids 0 to 319"),
        (["ab\udcffcd"], "is not UTF-8"),
        (["ab\ud800cd"], "half a surrogate pair"),
    ],
)  # fmt: skip
def test_bad_input(run, text_model, arguments, message):
    ran = run("generate", "--model", text_model, *arguments)
    assert ran.code == 2
    assert message in ran.error
    assert ran.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: PROMPT"),
        (["two", "words"], "unexpected argument 'words'; put quotes around a text with spaces"),
        ([PROMPT, "--temprature", "1"], "unknown option --temprature; did you mean --temperature?"),
        ([PROMPT, "--typical-p=0.5"], "unknown option --typical-p=0.5; use --option typical_p=VALUE"),
        ([PROMPT, "--xyzzy"], "unknown option --xyzzy (see"),
        ([PROMPT, "--top-k", "many"], "argument --top-k: invalid int value: 'many'"),
        ([PROMPT, "--top-k"], "argument --top-k: expected one argument"),
        ([PROMPT, "--option", "top_k"], "'top_k' is not NAME=VALUE"),
        ([PROMPT, "--eos-token-id", "x"], "'x' is neither ids with commas, like 2,7, nor none"),
        ([PROMPT, "--max-new", "3"], "unknown option --max-new; did you mean --max-new-tokens?"),
    ],
)  # fmt: skip
def test_wrong_usage(run, arguments, message):
    ran = run("generate", *arguments)
    assert ran.code == 2
    assert message in ran.error
    assert "(see `sabiyarn-edge generate --help`)" in ran.error


# --- bad models: one line, exit code 1 ---


def damage_config(model, **changes):
    path = model / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config.update(changes)
    path.write_text(json.dumps(config), "utf-8")


def truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 1000])


@pytest.mark.parametrize("name", ["config.json", "decoder.onnx", "weights.bin"])
def test_a_missing_file_is_named(run, model, name):
    (model / name).unlink()
    ran = run("generate", "--model", model, PROMPT)
    assert ran.code == 1
    assert name in ran.error


@pytest.mark.parametrize("name", ["config.json", "decoder.onnx", "weights.bin", "tokenizer.json"])
def test_a_truncated_file_is_named(run, model, name):
    truncate(model / name)
    ran = run("generate", "--model", model, PROMPT)
    assert ran.code == 1
    assert name in ran.error


def test_a_damaged_generation_config_is_named(run, model):
    (model / "generation_config.json").write_text('{"do_sample": true, "top_p": 7}')
    ran = run("generate", "--model", model, PROMPT)
    assert ran.code == 1
    assert "generation_config.json: top_p is 7" in ran.error


def test_text_goes_past_the_last_position(run, text_model):
    ran = run("generate", "--model", text_model, "--ids", "1 2 3", "--max-new-tokens", "200", "--json",
              "--overflow", "slide", "--keep-tokens", "2")  # fmt: skip
    assert "3 slides took" in ran.err
    result = json.loads(ran.out)
    assert len(result["generated"][0]) == 200
    assert result["timings"]["reruns"] == 3  # of 96 positions 47 are freed each time
    refused = run("generate", "--model", text_model, "--ids", "1 2 3", "--max-new-tokens", "200")
    assert "positions" in refused.error


def test_weights_of_another_model_are_told(run, model, tmp_path):
    other = export_tiny(tmp_path / "other", {"block_size": 32}, verify=False).folder
    shutil.copyfile(other / "weights.bin", model / "weights.bin")
    ran = run("generate", "--model", model, PROMPT)
    assert ran.code == 1
    assert "weights.bin belongs to another model" in ran.error


@pytest.mark.parametrize("change", [{"n_layer": 3}, {"n_heads": 1}, {"vocab_size": 321}])
def test_a_config_that_disagrees_with_the_graph_is_told(run, model, change):
    damage_config(model, **change)
    ran = run("generate", "--model", model, PROMPT)
    assert ran.code == 1
    assert "config.json disagrees with decoder.onnx" in ran.error


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder", "owner/name"])
def test_an_unknown_model_is_told(run, name):
    ran = run("generate", "--model", name, PROMPT)
    assert ran.code == 1
    assert f"{name} is not a folder" in ran.error


def test_a_checkpoint_is_told_from_a_model_folder(run, model):
    config = json.loads((model / "config.json").read_text("utf-8"))
    del config["sabiyarn_edge"]
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    ran = run("generate", "--model", model, PROMPT)
    assert ran.code == 1
    assert "run `sabiyarn-edge export` on it first" in ran.error


def test_nan_in_the_models_scores_is_told(run, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from safetensors.torch import load_file, save_file

    from sabiyarn_edge.export import export_model

    source = make_tiny_checkpoint(tmp_path / "checkpoint")
    tensors = load_file(source / "model.safetensors")
    tensors["transformer.ln_f.weight"] = torch.full_like(
        tensors["transformer.ln_f.weight"], 3e38
    )  # inf - inf
    save_file(tensors, source / "model.safetensors")
    export_model(source, tmp_path / "model", progress=False, verify=False)
    ran = run("generate", "--model", tmp_path / "model", "--ids", "5 6 7", "--quiet")
    assert ran.code == 1
    assert "row 0" in ran.error


# --- structured output ---


def test_one_of_some_choices(run, text_model, generator):
    ran = run("generate", "--model", text_model, PROMPT, "--choice", "ọmọ", "--choice", "ilé", "--quiet")
    assert ran.out == generator.generate(PROMPT, choices=["ọmọ", "ilé"]).text + "\n"


def test_a_schema_is_text_or_a_file(run, text_model, tmp_path):
    pytest.importorskip("llguidance")
    schema = '{"enum": ["ilé", 12]}'
    file = tmp_path / "schema.json"
    file.write_text(schema, encoding="utf-8")
    outs = [
        run("generate", "--model", text_model, PROMPT, "--json-schema", given, "--quiet").out
        for given in (schema, file)
    ]
    assert outs[0] == outs[1]
    assert json.loads(outs[0]) in ("ilé", 12)


def test_other_forms_of_output(run, text_model, tmp_path):
    pytest.importorskip("llguidance")
    grammar = tmp_path / "grammar.lark"
    grammar.write_text('start: "ab" | "cd"', encoding="utf-8")
    for arguments, pattern in [
        (("--regex", "[0-9]{3}"), "[0-9]{3}"),
        (("--grammar", grammar), "ab|cd"),
        (("--json-object", "--max-new-tokens", "30"), r"\{.*"),
    ]:
        ran = run("generate", "--model", text_model, PROMPT, *arguments, "--json", "--quiet")
        found = json.loads(ran.out)
        assert re.fullmatch(pattern, found["texts"][0], re.DOTALL)
        assert found["complete"] == [found["finish_reasons"] == ["stop"]]


def test_bad_forms_of_output(run, text_model, tmp_path):
    pytest.importorskip("llguidance")
    deep, unclosed = tmp_path / "deep.json", tmp_path / "unclosed"
    deep.write_text("[" * 200_000)
    unclosed.write_text("(" + "x" * 200_000)
    for arguments, message in [
        (("--json-schema", deep), "--json-schema is not JSON: it is nested too deeply"),
        (("--grammar", unclosed), "grammar cannot be used: "),
        (("--json-schema", tmp_path / "missing.json"), "missing.json cannot be read"),
        (("--json-schema", '{"type": "strin"}'), "--json-schema cannot be used"),
        (("--grammar", tmp_path), "cannot be read"),
        (("--json-schema", "[" * 20_000), "... cannot be read: File name too long"),
        (("--grammar", "x" * 20_000), "... cannot be read: File name too long"),
        (("--grammar", "/dev/zero"), "longer than 64 MiB"),
        (("--regex", "a", "--choice", "b"), "regex and choices are given"),
    ]:
        ran = run("generate", "--model", text_model, PROMPT, *arguments)
        assert ran.code == 2
        assert message in ran.error
        assert len(ran.error) < 800


LONG = "a" * 20_000


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", PROMPT, "--max-new-tokens", LONG),
        ("generate", PROMPT, "--option", LONG),
        ("generate", PROMPT, "--eos-token-id", LONG),
        ("generate", PROMPT, f"--{LONG}"),
        (LONG,),
        ("batch", LONG, "out.jsonl"),
        ("export", LONG, "out"),
        ("serve", "--host", LONG, "--port", "0"),
        ("serve", "--api-key-file", LONG),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_messages_quote_little_of_a_long_argument(run, arguments):
    ran = run(*arguments)
    assert ran.code != 0
    assert "aaa..." in ran.error or len(ran.error) < 150
    assert len(ran.error) < 800
