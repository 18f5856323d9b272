"""`python -m spectralgru`: the command, where its script is not in PATH."""

from spectralgru.pipeline.cli import main

main()
