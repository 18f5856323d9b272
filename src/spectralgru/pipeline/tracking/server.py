"""Serves MLflow's pages on a database to the person who starts it; anyone with the address may write as the owner.

Other users of a machine can reach all its ports, and MLflow asks for no password. So the address contains a secret, new
at every start, and MLflow answers only below it. `mlflow server` has no such option: its application runs in this
process, which also keeps the database's password out of the process list.
"""

import hmac
import json
import os
import secrets
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spectralgru.errors import InputError
from spectralgru.pipeline.redaction import without_secrets
from spectralgru.pipeline.tracking.store import ENVIRONMENT, PREFIX, artifact_root, open_store, tracking_uri

# Of the table of runs.
COLUMNS = [
    "tags.`method`",
    "tags.`value`",
    "metrics.`best_valid`",
    "metrics.`best_test`",
    "metrics.`success`",
    "tags.`status`",
]
TABLE = {
    "searchFilter": "",
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsVisibilityMap": {},
    "runsHiddenMode": "FIRST_10_RUNS",
}
EVERYWHERE = ("0.0.0.0", "::")


def serve(port: int, host: str, say: Callable[[str], None]) -> None:
    """Print the address and serve until interrupted; port 0 means any free one.

    Raises InputError for a store that is not a database, or an address that cannot be listened on.
    """
    uri = tracking_uri()
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
        uvicorn.Server(uvicorn.Config(_Gate(served, secret, uri), log_level="warning")).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: not a port; give 1 to 65535, or 0 for any that is free")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that cannot be a name
        raise InputError(
            f"--host {host} --port {port}: cannot be listened to ({getattr(error, 'strerror', None) or error}); "
            "stop the program that uses the port, or name a free one: spectralgru ui --port 0, make ui PORT=0"
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
        warnings.simplefilter("ignore")  # they are about MLflow's own code
        from mlflow.server.fastapi_app import app
    return app


def _first_page(uri: str) -> str:
    """MLflow's page, set to open for training instead of chat bots, without its own chat, and with `COLUMNS`.

    MLflow keeps these choices in the browser only; what the reader has chosen there stays.
    """
    import mlflow.server

    page = Path(mlflow.server.__path__[0], "js", "build", "index.html").read_text(encoding="utf-8")
    kept: dict[str, Any] = {
        "mlflow.workflowType_v1": "machine_learning",
        "mlflow.assistant.panelOpen_v1": False,
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    }
    for experiment in open_store(uri).search_experiments(filter_string=f"name LIKE '{PREFIX}%'"):
        key = f'MLflowLocalStorage-1.1-ExperimentPage-["{experiment.experiment_id}"]-ReactComponentState'
        kept[key] = TABLE | {"selectedColumns": COLUMNS}
    chosen = (f"localStorage[{json.dumps(key)}] ??= {json.dumps(json.dumps(kept[key]))};" for key in kept)
    return page.replace("<head>", f"<head><script>{''.join(chosen)}</script>", 1)


class _Gate:
    """Passes requests below `/<secret>/` on to the application, without the prefix; answers the first page itself."""

    def __init__(self, app: Any, secret: str, uri: str) -> None:
        self.app, self.secret, self.uri = app, secret, uri

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse

        app = self.app
        if scope["type"] != "lifespan":
            given, slash, rest = scope["path"].removeprefix("/").partition("/")
            if hmac.compare_digest(given.encode(), self.secret.encode()):
                scope = scope | {"path": f"/{rest}"}
                if not slash:  # MLflow's pages name their parts relative to it
                    app = RedirectResponse(f"/{self.secret}/")
                elif not rest:
                    page = await run_in_threadpool(_first_page, self.uri)
                    app = HTMLResponse(page, headers={"X-Frame-Options": "SAMEORIGIN"})
            elif scope["type"] != "http":
                return
            elif scope["path"] != "/health":
                app = PlainTextResponse("Open the address that `spectralgru ui` printed.\n", 401)
        await app(scope, receive, send)
