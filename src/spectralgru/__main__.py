"""The command `spectralgru`, also `python -m spectralgru` where its script is not on the PATH."""

import sys


def main() -> None:
    """Run the command line, or say in one line that only the library is installed."""
    try:
        from spectralgru.pipeline.cli import main as run
    except ModuleNotFoundError as error:
        sys.exit(
            f"spectralgru: the command line needs {error.name}, which is not installed; the library alone does not: "
            "pip install 'spectralgru[pipeline]'"
        )
    run()


if __name__ == "__main__":
    main()
