from __future__ import annotations

import builtins
import json
import re
import shutil
import sys
import types

import pytest

from sabiyarn_edge.system.installation import install_command
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint
from tests.tiny_tokenizer import tiny_tokenizer

pytest.importorskip("torch")
pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny random checkpoint with a tokenizer."""
    tokenizer = tiny_tokenizer()
    folder = make_tiny_checkpoint(
        tmp_path_factory.mktemp("cli") / "checkpoint", vocab_size=tokenizer.get_vocab_size()
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_an_export_is_summed_up(run, checkpoint, tmp_path):
    ran = run(
        "export", checkpoint, tmp_path / "out", "--max-length", "32", "--kv-cache-dtype", "float32", "--quiet"
    )
    assert (ran.code, ran.err) == (0, "")
    size, shape, accuracy, roughest, check, *notes = ran.out.splitlines()
    assert size.startswith(f"{tmp_path / 'out'}: ")
    assert "MiB (config.json 0.0, " in size
    assert shape.endswith(
        " parameters as int8; 32 positions, cut from 64; KV cache float32, 256 bytes per token"
    )
    assert re.match(
        r"compared with float32 on 8 pieces of 32 tokens that the model wrote: perplexity \S+ instead of \S+ \(.*%\), "
        r"mean KL divergence \S+ nats, same likeliest token after \S+% of 256 tokens$",
        accuracy,
    )
    assert re.match(
        r"roughest matrix: transformer\.\S+ \(int8\), off by \S+% of its size and at most", roughest
    )
    assert check.startswith("compared with torch on the same weights: largest logit difference ")
    assert "greedy choice agrees for " in check
    assert all(note.startswith("note: ") for note in notes)
    assert run("generate", "--model", tmp_path / "out", "ab", "--max-new-tokens", "2").code == 0


def test_json_is_the_report(run, checkpoint, tmp_path):
    ran = run("export", checkpoint, tmp_path / "out", "--no-verify", "--quiet", "--json")
    report = json.loads(ran.out)
    assert report == json.loads((tmp_path / "out" / "export_report.json").read_text("utf-8"))
    assert report["verification"] is None


def test_without_the_check_the_summary_says_so(run, checkpoint, tmp_path):
    assert (
        "\nnot compared with torch"
        in run("export", checkpoint, tmp_path / "out", "--no-verify", "--quiet").out
    )


def test_a_portable_graph_is_summed_up(run, checkpoint, tmp_path):
    out = run("export", checkpoint, tmp_path / "out", "--portable", "--quiet").out
    assert "portable/model.onnx.data " in out
    assert re.search(
        r"^portable: standard operators of opset 17, float32 weights; largest logit difference from the checkpoint in "
        r"torch \S+ \(bound \S+\)$",
        out,
        flags=re.MULTILINE,
    )
    out = run("export", checkpoint, tmp_path / "unverified", "--portable", "--no-verify", "--quiet").out
    assert "float32 weights; not compared with torch" in out


def test_progress_goes_to_stderr(run, checkpoint, tmp_path):
    ran = run("export", checkpoint, tmp_path / "out", "--no-verify")
    assert "writing weights" in ran.err
    assert "writing weights" not in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--dtype", "int3"], 2, "dtype is 'int3'; it must be one of float32"),
        (["--block-size", "100"], 2, "block size is 100; it must be one of 16, 32, 64, 128, 256 weights"),
        (["--block-size", "32"], 1, "n_embd is 16, which is not a multiple of the 32 weights of a block"),
        (["--keep-int8", "first"], 2, "--keep-int8 (first) was given, but dtype is int8"),
        (["--dtype", "int4", "--keep-int8", "first,h.9"], 2, "--keep-int8 names 'h.9', which no matrix is"),
        (
            ["--kv-cache-dtype", "int4"],
            2,
            "--kv-cache-dtype is 'int4'; it must be one of float16, float32, int8",
        ),
        (
            ["--dtype", "int4", "--rounding", "up"],
            2,
            "rounding is 'up'; it must be one of nearest, search, gptq",
        ),
        (["--rounding", "gptq"], 2, "rounding (gptq) was given, but dtype is int8"),
        (["--calibration", "a.txt"], 2, "a calibration text (a.txt) was given, but nothing looks at one"),
        (
            ["--dtype", "int4", "--rounding", "search", "--keep-int8", "none", "--calibration", "a.txt"],
            2,
            "a calibration text (a.txt) was given, but nothing looks at one",
        ),
        (
            ["--dtype", "int4", "--calibration", "absent.txt"],
            2,
            "cannot read the calibration text absent.txt",
        ),
        (["--kv-cache-dtype", "int8", "--calibration", "absent.txt"], 2, "cannot read the calibration text"),
        (["--evaluate", "absent.txt"], 2, "cannot read the evaluation text absent.txt: No such file"),
        (["--max-length", "0"], 2, "--max-length is 0"),
        (["--max-length", "65"], 1, "--max-length is 65, but block_size is 64"),
        (["--max-length", "many"], 2, "argument --max-length: invalid int value: 'many'"),
        (["--verify"], 2, "unknown option --verify; did you mean --no-verify?"),
    ],
)
def test_bad_options(run, checkpoint, tmp_path, arguments, code, message):
    ran = run("export", checkpoint, tmp_path / "out", "--quiet", *arguments)
    assert ran.code == code
    assert message in ran.error
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_kept_unless_forced(run, checkpoint, model):
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    ran = run("export", checkpoint, model, "--quiet", "--no-verify")
    assert ran.code == 1
    assert "--force" in ran.error
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert run("export", checkpoint, model, "--quiet", "--no-verify", "--force").code == 0


def test_a_folder_that_cannot_be_made(run, checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    ran = run("export", checkpoint, tmp_path / "file" / "out", "--quiet", "--no-verify")
    assert ran.code == 1
    assert str(tmp_path / "file") in ran.error


def test_a_full_disk(run, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    ran = run("export", checkpoint, tmp_path / "out", "--quiet", "--no-verify")
    assert ran.code == 1
    assert "Free some space" in ran.error
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint(run, tmp_path):
    pytest.importorskip("torch")
    ran = run("export", tmp_path, tmp_path / "out", "--quiet")
    assert ran.code == 1
    assert "config.json" in ran.error


def test_missing_packages_are_told_with_the_command_that_installs_them(
    run, checkpoint, tmp_path, monkeypatch
):
    for name in [name for name in sys.modules if name.startswith("sabiyarn_edge.export")]:
        monkeypatch.delitem(sys.modules, name)
    real_import = builtins.__import__

    def without_onnx(name, *arguments, **options):
        if name.partition(".")[0] == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    ran = run("export", checkpoint, tmp_path / "out")
    assert ran.code == 1
    assert ran.error == (
        f"export needs the package onnx, which is not installed. Run: {install_command('export')}"
    )


def test_another_models_tokenizer(run, checkpoint, tmp_path):
    """The checkpoint as it is published: without a tokenizer, whose model is named instead."""
    published = tmp_path / "published"
    shutil.copytree(checkpoint, published, ignore=shutil.ignore_patterns("tokenizer.json"))
    out = tmp_path / "out"
    ran = run("export", published, out, "--tokenizer", checkpoint, "--no-verify", "--quiet")
    assert ran.code == 0
    assert "has no tokenizer.json" not in ran.out
    assert (out / "tokenizer.json").read_bytes() == (checkpoint / "tokenizer.json").read_bytes()
    assert run("generate", "--model", out, "ab", "--max-new-tokens", "2").code == 0
    ran = run("export", published, tmp_path / "other", "--tokenizer", published, "--quiet")
    assert "holds no tokenizer.json. Give the folder or the hub id of a model that has one." in ran.error


def test_experts_that_stay(run, tmp_path):
    source = make_tiny_checkpoint(tmp_path / "checkpoint", use_moe=True)
    out = tmp_path / "out"
    assert run("export", source, out, "--experts", "0:0,3;*:0,1,2", "--no-verify", "--quiet").code == 0
    config = json.loads((out / "config.json").read_text("utf-8"))
    assert config["expert_per_layer"] == {"0": 2, "1": 3}
    ran = run("export", source, tmp_path / "other", "--experts", "1:2", "--quiet")
    assert (
        "layer 1 is to keep 1 of its 4 experts (2), but each token is routed to num_experts_per_tok = 2"
        in ran.error
    )
