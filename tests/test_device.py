"""On a device, which has neither torch nor _core_testing, the tests that can run are found, and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.device import files_of, needs

TESTS = Path(__file__).parent
LACKING = frozenset({"torch", "onnx", "safetensors", "transformers", "sabiyarn_edge._core_testing"})


def test_imports_are_followed_at_any_depth(tmp_path: Path) -> None:
    def reason(text: str) -> str | None:
        path = tmp_path / f"{abs(hash(text))}.py"
        path.write_text(text, encoding="utf-8")
        return needs(path, LACKING)

    assert reason("import json, torch.nn") == "torch.nn"
    assert reason("from sabiyarn_edge.modeling import GPTJXForCausalLM") == "torch"
    assert reason("from sabiyarn_edge import export") is not None
    assert reason("from tests.decoding import hf_toy") == "torch"
    assert reason("from sabiyarn_edge import _core_testing") == "sabiyarn_edge._core_testing"
    assert reason("from sabiyarn_edge._core_testing import gelu") == "sabiyarn_edge._core_testing"
    assert reason("from sabiyarn_edge import _core") is None
    assert reason("def later():\n    import torch") is None
    assert reason("import torchbearer, tests.export.models, sabiyarn_edge.generator") is None
    assert reason("import sabiyarn_edge.cli") is None  # its modules import one another
    assert needs(TESTS / "modeling" / "conftest.py", LACKING) == "torch"
    assert needs(TESTS / "test_generator.py", LACKING) is None


def test_a_module_is_its_packages_and_itself() -> None:
    found = files_of("tests.core.kv.twins_kv")
    assert [path.relative_to(TESTS).as_posix() for path in found] == [
        "__init__.py",
        "core/__init__.py",
        "core/kv/__init__.py",
        "core/kv/twins_kv.py",
    ]


def test_the_tests_of_the_run_time_are_collected_on_a_device() -> None:
    code = (
        f"import sys, pytest; sys.modules.update(dict.fromkeys({sorted(LACKING)}));"
        f"sys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', {str(TESTS)!r}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=TESTS.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    for file in (
        "core/kv/test_kv_cache.py",
        "test_generator.py",
        "text/test_streaming.py",
        "decoding/test_draws.py",
    ):
        assert f"tests/{file}::" in run.stdout
    for file in ("export/", "modeling/", "engine/test_decoder.py", "core/simd/"):
        assert f"tests/{file}" not in run.stdout


def test_a_test_that_comes_upon_what_is_lacking_is_skipped(tmp_path: Path) -> None:
    """The same in a fixture and in a test; an import that fails for another reason is an error."""
    (tmp_path / "test_x.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def fixture():\n    import torch\n"
        "def test_fixture(fixture): pass\n"
        "def test_itself():\n    import onnx.numpy_helper\n"
        "def test_core():\n    from sabiyarn_edge._core_testing import gelu\n"
        "def test_other():\n    import no_such_package\n"
    )
    code = (
        f"import sys, pytest; sys.modules.update(dict.fromkeys({sorted(LACKING)}));"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-p', 'tests.conftest', {str(tmp_path)!r}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=TESTS.parent, capture_output=True, text=True)
    assert "1 failed, 3 skipped" in run.stdout, run.stdout + run.stderr
