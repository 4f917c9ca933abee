"""Jobs over corpora: a record for each line of a file, in order, exactly once, whatever interrupts the work."""

from __future__ import annotations

from .batch import BatchSummary, run_batch
from .merge import merge_shards

__all__ = ["BatchSummary", "merge_shards", "run_batch"]
