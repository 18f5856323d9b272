"""Training: needs torch and numpy only."""

import os

# Large buffers come and go at every step; huge pages save most of the page faults (a quarter of the step).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
