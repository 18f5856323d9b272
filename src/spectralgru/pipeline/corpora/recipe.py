"""How sources become prepared corpora, as a number: change the code, change the number, and all are prepared again."""

from pathlib import Path

RECIPE = 2
FILE = Path(__file__)  # what the workflow's preparation depends on
