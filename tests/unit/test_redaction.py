"""Passwords and tokens in the texts that drivers make of addresses."""

import random
import string
from urllib.parse import quote, quote_plus, unquote

import pytest

from spectralgru.pipeline.redaction import without_secrets

SIGNS = string.ascii_letters + string.digits + "@:/?#&%+!$*()[] "


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://anna:pa@ss/w:rd@host:5000/x", "http://anna:***@host:5000/x"),
        ("https://ghp_0123@host/x", "https://***@host/x"),
        (
            "postgresql+psycopg2://anna:x@h/db?sslmode=require",
            "postgresql+psycopg2://anna:***@h/db?sslmode=***",
        ),
        ("http://host/?a=1&token=x#access_token=y", "http://host/?a=***&token=***#access_token=***"),
        (
            "Pool(host='h'): url: /api/x?token=abc (Caused by E)",
            "Pool(host='h'): url: /api/x?token=*** (Caused by E)",
        ),
        ("dsn: host=h user=anna password=x dbname=d", "dsn: host=h user=anna password=*** dbname=d"),
        ("http://h:5000/token=abc/api and http://u:p@h", "http://h:5000/token=***/api and http://u:***@h"),
    ],
)
def test_what_may_be_secret_becomes_stars(text: str, shown: str):
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///results/mlflow.db",
        "postgresql://anna@host:5432/runs",
        "http://127.0.0.1:5000",
        "HTTPConnectionPool(host='127.0.0.1', port=5000): Max retries exceeded with url: /api/2.0/x",
        "results/quick/runs/ptb/clipping-5: --set training.epochs=5 is no number; give 1 <= epochs",
    ],
)
def test_what_is_not_stays(text: str):
    assert without_secrets(text) == text


def test_no_form_of_a_password_is_left_in_what_a_driver_makes_of_it():
    chance = random.Random(0)
    for _ in range(300):
        secret = "S3" + "".join(chance.choices(SIGNS, k=chance.randint(1, 12))) + "x9"
        for given in (secret, quote(secret, safe=""), quote_plus(secret)):
            uris = [
                f"postgresql://anna:{given}@db.example/runs",
                f"http://h:5000/?token={quote(secret, safe='')}",
            ]
            for uri in uris:
                said = [
                    uri,
                    given,
                    unquote(given),
                    f"could not translate host name {given.split('@', 1)[-1]!r}",
                ]
                for text in said:
                    shown = without_secrets(f"{text}: broken", uri)
                    assert secret not in shown
                    assert given not in shown
                    assert "S3" not in shown or "x9" not in shown
