"""Questions that the paper's tables leave open, each answered by an experiment of its own: one module each.

`base` says what an experiment is, `settings` what params.yaml says of it.
"""
