"""MLflow's pages on a database, for the person who starts them: anyone with the address may write as the owner.

Other users of a machine can reach each of its ports. So the address contains a secret, new at every start, and MLflow,
which asks for no password, answers only below it. `mlflow server` has no place for one: its application runs in this
process, which also keeps the database's password out of the list of processes.
"""

import hmac
import os
import secrets
import socket
import warnings
from collections.abc import Callable
from typing import Any

from spectralgru.errors import InputError
from spectralgru.pipeline.redaction import without_secrets
from spectralgru.pipeline.tracking.store import ENVIRONMENT, artifact_root, open_store, tracking_uri

EVERYWHERE = ("0.0.0.0", "::")


def serve(port: int, host: str, say: Callable[[str], None], uri: str | None = None) -> None:
    """Print the address and serve until interrupted; port 0 means any free one.

    Raises InputError for a store that is not a database and for an address that cannot be listened on.
    """
    uri = tracking_uri(uri)
    root = artifact_root(uri)
    if root is None:
        raise InputError(
            f"MLflow store {without_secrets(uri)}: not a database to serve; open a server's address in a browser"
        )
    with _listen(host, port) as listener:
        open_store(uri)
        port, secret = listener.getsockname()[1], f"token={secrets.token_urlsafe(24)}"
        name = socket.gethostname() if host in EVERYWHERE else host
        place = f"[{name}]" if ":" in name else name
        served = _application(uri, str(root), place)
        import uvicorn

        # MLflow's own default is its pages for chat bots.
        say(f"http://{place}:{port}/{secret}/#/experiments?workflowType=machine_learning")
        uvicorn.Server(uvicorn.Config(_Gate(served, secret), log_level="warning")).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: no port; give 1 to 65535, or 0 for any that is free")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that cannot be a name
        raise InputError(
            f"--host {host} --port {port}: cannot be listened to ({getattr(error, 'strerror', None) or error}); "
            "end the program that has the port, or name a free one: spectralgru ui --port 0, make ui PORT=0"
        ) from error


def _application(uri: str, root: str, host: str) -> Any:
    """MLflow's application, which reads its settings from the environment when it is imported."""
    from mlflow.server import constants

    names = [host, "localhost", "127.0.0.1"]
    settings = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(place for name in names for place in (name, f"{name}:*")),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}:*" for name in names),
    }
    for name, value in (ENVIRONMENT | settings).items():
        os.environ.setdefault(name, value)
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: uri,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: root,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow will have to change in its own code
        from mlflow.server.fastapi_app import app
    return app


class _Gate:
    """Passes requests below `/<secret>/` to the application, without that prefix."""

    def __init__(self, app: Any, secret: str) -> None:
        self.app, self.secret = app, secret

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import PlainTextResponse, RedirectResponse

        app = self.app
        if scope["type"] != "lifespan":
            given, slash, rest = scope["path"].removeprefix("/").partition("/")
            if hmac.compare_digest(given.encode(), self.secret.encode()):
                scope = scope | {"path": f"/{rest}"}
                if not slash:  # MLflow's pages name their parts relative to it
                    app = RedirectResponse(f"/{self.secret}/")
            elif scope["type"] != "http":
                return
            elif scope["path"] != "/health":
                app = PlainTextResponse("Open the address that `spectralgru ui` printed.\n", 401)
        await app(scope, receive, send)
