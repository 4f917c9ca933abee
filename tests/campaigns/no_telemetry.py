"""Waits for onnxruntime's telemetry, which opens its first socket some 10 seconds after the import.

    python -m tests.campaigns.no_telemetry [--seconds 40]

Loads the bundled model and keeps generating: once as this package does it, and once with telemetry on. Both run under a
filter with which the kernel kills a process that opens a socket, so nothing leaves this machine. Exit code 0 if the
second run is killed and the first is not.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

from tests.campaigns.no_sockets import KILLED, run_without_sockets, why_unavailable

GENERATE = """
import sys, time
from sabiyarn_edge import EdgeGenerator
generator = EdgeGenerator.from_pretrained("nano", num_threads=1)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    generator.generate("<yor> Gbogbo", max_new_tokens=20)
    time.sleep(0.2)
"""


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=40.0)
    seconds = parser.parse_args().seconds
    if why_unavailable():
        sys.exit(why_unavailable())
    codes = {}
    for name, variables in {"ours": {}, "telemetry on": {"ORT_DISABLE_TELEMETRY": "0"}}.items():
        with tempfile.TemporaryDirectory() as home:
            environment = {"PATH": os.environ["PATH"], "HOME": home, **variables}
            done = run_without_sockets([sys.executable, "-c", GENERATE, str(seconds)], env=environment)
        codes[name] = done.returncode
        outcome = {0: f"no socket in {seconds:.0f} s", KILLED: "killed at its first socket"}
        print(f"{name}: {outcome.get(done.returncode, done.stderr)}", flush=True)
    return 0 if codes == {"ours": 0, "telemetry on": KILLED} else 1


if __name__ == "__main__":
    sys.exit(main())
