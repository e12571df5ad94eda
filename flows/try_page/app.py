"""The page, and the address that films are sent to; Starlette, which Prefect and MLflow bring."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from flows.try_page.looking import Looker
from lapvqa.errors import LapvqaError
from lapvqa.ingest.one_file import MAX_FILE_BYTES
from lapvqa.pages.templates import templates

_HOSTS = ["127.0.0.1", "localhost"]
"""As a browser here calls this server; another name is somebody's page that has itself looked up
as this address."""
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)


def make_app(looker: Looker) -> Starlette:
    """Return the application of one model."""
    template = templates(Path(__file__).parent).get_template("page.html")
    page = template.render(about=looker.encoder.about, probe=looker.probe)

    async def show(request: Request) -> Response:
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
        return HTMLResponse(page, headers=headers)

    async def look(request: Request) -> Response:
        if request.headers.get("x-lapvqa") != "try":  # no page from elsewhere can send it
            return JSONResponse({"error": "expected a request of this page"}, 403)
        if int(request.headers.get("content-length") or MAX_FILE_BYTES + 1) > MAX_FILE_BYTES:
            return JSONResponse({"error": f"expected at most {MAX_FILE_BYTES} bytes"}, 413)
        question = unquote(request.headers.get("x-question", ""))
        try:
            found = await run_in_threadpool(looker.look, await request.body(), question)
        except LapvqaError as error:
            return JSONResponse({"error": f"{error.message}; {error.hint}"}, 400)
        return JSONResponse(found, headers={"Cache-Control": "no-store"})

    return Starlette(
        routes=[Route("/", show), Route("/film", look, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)],
    )
