"""Chooses between onnxruntime's two kernels of GroupQueryAttention.

One goes through keys and values tile by tile and keeps no scores ("flash attention"); the other computes all scores
first. onnxruntime 1.32 has both for float32 and int8 caches, and takes the first. For one new token on an int8 cache
the second makes a step of SabiYarn-125M shorter by 8, 3 and 18 % at 128, 1024 and 4000 past tokens, and by 14 % for
8 rows of 1024 (x86-64, 2 threads); prefill takes as long with either. Float32 is faster with the first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["attention_kernel"]

VARIABLE = "ORT_GQA_DISABLE_FLASH_ATTENTION"
"""Read by onnxruntime when a session is made; there is no session option for it."""

_making_session = threading.Lock()


@contextmanager
def attention_kernel(kv_cache_dtype: str) -> Iterator[None]:
    """Sessions made inside take the kernel that suits the cache, unless the user has set VARIABLE.

    One thread at a time is inside: the variable is the process's, and another session would see it too.
    """
    with _making_session:
        if kv_cache_dtype != "int8" or VARIABLE in os.environ:
            yield
            return
        os.environ[VARIABLE] = "1"
        try:
            yield
        finally:
            del os.environ[VARIABLE]
