"""Addresses as they may be shown: without passwords, tokens and the values of queries."""

import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
_SECRET_NAME = "[\\w-]*(?:pass|pwd|token|secret|credential|signature|api[_-]?key)[\\w-]*"
# Up to the last @ of a word: an unencoded password may hold any character. Over HTTP, a user name alone may be a token.
_USER = re.compile(r"(\w://[^/?#@:\s]*):\S*@|(\bhttps?://)[^/?#@:\s]+@", re.IGNORECASE)
_VALUE = re.compile(rf"([?&#][^=&#\s]*|\b{_SECRET_NAME})=[^&#/\s'\"<>),]+", re.IGNORECASE)


def without_secrets(text: str, uri: str = "") -> str:
    """`text` with stars for the secrets of URLs in it, and for those of `uri` as any driver prints them."""
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    text = _USER.sub(lambda match: f"{match[1] + ':' if match[1] else match[2]}{HIDDEN}@", text)
    return _VALUE.sub(rf"\1={HIDDEN}", text)


def _secrets(uri: str) -> Iterator[str]:
    """Password and secret values of the query: as they are, decoded, and in the pieces a parser may make of them."""
    user, _, _ = uri.partition("://")[2].rpartition("@")
    for value in (
        user.partition(":")[2],
        *re.findall(rf"[?&/#]{_SECRET_NAME}=([^&#/]+)", uri, re.IGNORECASE),
    ):
        plain = {value, unquote(value), unquote_plus(value)} - {""}
        for form in plain | {code(text, safe="") for text in plain for code in (quote, quote_plus)}:
            yield form
            yield from (piece for piece in re.split(r"[@/:?#&\s]", form) if len(piece) > 1)
