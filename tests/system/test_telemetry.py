"""What onnxruntime's telemetry does by whose say, in processes whose environment and home folder are made up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STATE = "from sabiyarn_edge.system import telemetry; print(telemetry.state())"


def run(code: str, home: Path, **variables: str) -> str:
    """Standard output of a fresh interpreter."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "HOME": str(home), **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


@pytest.mark.parametrize(
    ("variables", "value", "state"),
    [
        ({}, "1", "off"),
        ({"ORT_DISABLE_TELEMETRY": ""}, "1", "off"),
        ({"ORT_DISABLE_TELEMETRY": "1"}, "1", "off"),
        ({"ORT_DISABLE_TELEMETRY": "TRUE"}, "TRUE", "off"),
        ({"ORT_DISABLE_TELEMETRY": "0"}, "0", "on"),
    ],
    ids=["unset", "empty", "off", "off in another way", "the user's own"],
)
def test_off_unless_the_user_says_otherwise(
    tmp_path: Path, variables: dict[str, str], value: str, state: str
) -> None:
    code = f"import os; {STATE}; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run(code, tmp_path, **variables).split() == [state, value]


@pytest.mark.parametrize("value", ["1", "YES", "0", "2"])
def test_values_mean_what_onnxruntime_takes_them_for(tmp_path: Path, value: str) -> None:
    """Its telemetry makes a device id as soon as onnxruntime is imported."""
    if not run("import onnxruntime", tmp_path / "control") and not list(tmp_path.rglob("deviceid")):
        pytest.skip("this onnxruntime was built without telemetry")
    code = f"import onnxruntime; {STATE}; print(telemetry.device_id_file())"
    state, file = run(code, tmp_path / "home", ORT_DISABLE_TELEMETRY=value).splitlines()
    assert (state == "off") == (file == "None")
    assert sorted(str(path) for path in (tmp_path / "home").rglob("deviceid")) == [file] * (state == "on")


def test_onnxruntime_imported_first(tmp_path: Path) -> None:
    assert run(f"import onnxruntime; {STATE}", tmp_path) == "came late"
    assert run(f"import onnxruntime; {STATE}", tmp_path, ORT_DISABLE_TELEMETRY="1") == "off"
    assert run(f"{STATE}; import onnxruntime; {STATE}", tmp_path).split() == ["off", "off"]


def test_no_home_folder_is_no_error(tmp_path: Path) -> None:
    code = "from sabiyarn_edge.system import telemetry; telemetry.device_id_file()"
    environment = {"PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
