"""Training: needs torch and numpy only."""

import os

# Every step allocates and frees large buffers; huge pages save most of the page faults (a quarter of the step).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
