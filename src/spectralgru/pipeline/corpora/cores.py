"""The number of processes that may read at a time."""

import os
import sys


def cores() -> int:
    """Cores that this process may use; a job on a cluster has fewer than its machine."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
