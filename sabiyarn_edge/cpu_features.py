"""What the kind of CPU decides: how weights are packed, and which suit it."""

from __future__ import annotations

import platform
import re
from pathlib import Path

__all__ = ["UnsuitedWeightsWarning", "describe_cpu", "lacks_dot_products", "lacks_vnni", "why_unsuited"]

_X86 = ("vendor_id", "cpu family", "model", "model name", "flags")
_ARM = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features")


class UnsuitedWeightsWarning(UserWarning):
    """The model runs, but its weights are of a kind that this CPU has no good products for."""


def lacks_dot_products(cpuinfo: str) -> bool:
    """Whether a text of /proc/cpuinfo is that of a 64-bit ARM CPU without dot product instructions (asimddp)."""
    return any(
        "asimd" in words and "asimddp" not in words for words in _instruction_sets("Features", cpuinfo)
    )


def lacks_vnni(cpuinfo: str) -> bool:
    """Whether a text of /proc/cpuinfo is that of an x86-64 CPU that multiplies bytes without VNNI.

    onnxruntime then adds pairs of products of an unsigned and a signed byte in 16 bits, which do not hold the largest.
    """
    found = _instruction_sets("flags", cpuinfo)
    return any("sse2" in words and not {"avx512_vnni", "avx_vnni"} & words for words in found)


def why_unsuited(dtype: str, cpuinfo: str | Path = "/proc/cpuinfo") -> str:
    """Why weights of an export's `dtype` do not suit this CPU, and what to do; "" if they do.

    onnxruntime 1.32 multiplies blocks of 4 and 8 bits on ARM with dot products, and where there are none by way of
    float32: 2.6 and 16 instructions per weight and token instead of 0.3 and 0.2 (tests/arm/README.md).
    """
    if dtype not in ("int4", "int8", "int8-per-channel"):
        return ""
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    if dtype != "int8-per-channel" and lacks_dot_products(text):
        return (
            f"on this CPU, which has no dot product instructions, {dtype} weights take many times as long as they "
            "should. For this device export the checkpoint with --dtype int8-per-channel."
        )
    if dtype == "int8-per-channel" and lacks_vnni(text):
        return (
            "on this CPU, which has no VNNI instructions, large sums of int8-per-channel products are cut off, and "
            "logits are a little off. For this device export the checkpoint with --dtype int8."
        )
    return ""


def _instruction_sets(field: str, cpuinfo: str) -> list[set[str]]:
    """Of each CPU."""
    return [set(words.split()) for words in re.findall(rf"^{field}\s*:(.*)$", cpuinfo, re.MULTILINE)]


def describe_cpu(cpuinfo: str | Path = "/proc/cpuinfo") -> str:
    """All that is known of this machine's CPUs: model and instruction sets. Equal texts: interchangeable CPUs.

    Boards with two kinds of core (big.LITTLE) name both. Where there is no /proc/cpuinfo (macOS, Windows) it is
    what Python's platform module knows.
    """
    lines = {platform.machine()}
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "\n".join([*lines, platform.processor(), platform.platform()])
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in (*_X86, *_ARM):
            lines.add(f"{name.strip()}: {' '.join(sorted(value.split()))}")
    return "\n".join(sorted(lines))
