"""The errors a person can do something about."""


class InputError(Exception):
    """Bad input or usage (exit code 2). The message names the thing, the value and the remedy."""


class RunError(Exception):
    """A valid request that could not be carried out (exit code 1), for example no source reachable."""
