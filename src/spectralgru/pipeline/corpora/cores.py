"""How many processes may read at a time."""

import os
import sys


def cores() -> int:
    """Cores this process may use; a cluster job has fewer than its machine."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
