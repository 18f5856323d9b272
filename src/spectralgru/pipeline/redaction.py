"""Removes passwords, tokens and the values of queries from addresses."""

import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
_SECRET_NAME = "[\\w-]*(?:pass|pwd|token|secret|credential|signature|api[_-]?key)[\\w-]*"
# Up to the last @ of a word, since an unencoded password may hold any character. In HTTP, a user name may be a token.
_USER = re.compile(r"(\w://[^/?#@:\s]*):\S*@|(\bhttps?://)[^/?#@:\s]+@", re.IGNORECASE)
_VALUE = re.compile(rf"([?&#][^=&#\s]*|\b{_SECRET_NAME})=[^&#/\s'\"<>),]+", re.IGNORECASE)


def without_secrets(text: str, uri: str = "") -> str:
    """`text` with stars in place of the secrets of its URLs and of `uri`, in any form in which a driver prints them."""
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    text = _USER.sub(lambda match: f"{match[1] + ':' if match[1] else match[2]}{HIDDEN}@", text)
    return _VALUE.sub(rf"\1={HIDDEN}", text)


def _secrets(uri: str) -> Iterator[str]:
    """The password and secret query values: as they are, decoded, and in the pieces a parser may make of them."""
    user, _, _ = uri.partition("://")[2].rpartition("@")
    for value in (
        user.partition(":")[2],
        *re.findall(rf"[?&/#]{_SECRET_NAME}=([^&#/]+)", uri, re.IGNORECASE),
    ):
        plain = {value, unquote(value), unquote_plus(value)} - {""}
        for form in plain | {code(text, safe="") for text in plain for code in (quote, quote_plus)}:
            yield form
            yield from (piece for piece in re.split(r"[@/:?#&\s]", form) if len(piece) > 1)
