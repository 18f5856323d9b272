"""`python -m spectralgru`: the command, for when its script is not on the PATH."""

from spectralgru.pipeline.cli import main

main()
