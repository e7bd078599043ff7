"""The page in Airflow 3.x: an application mounted in the API server, shown by the web UI in a frame.

Owns addresses, who may see them, and the headers. Refuses to read anything itself.
"""

from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, ConnectionDetails
from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from millpond.airflow.page import show

RESOURCE = "Millpond"


def _reader(user: Annotated[Any, Depends(get_user)]) -> Any:
    """Let in who may read the custom view `Millpond`, or see plugins."""
    manager = get_auth_manager()
    if manager.is_authorized_custom_view(method="GET", resource_name=RESOURCE, user=user):
        return user
    if manager.is_authorized_view(access_view=AccessView.PLUGINS, user=user):
        return user
    raise HTTPException(403, "Your roles may neither read “Millpond” nor see plugins.")


Reader = Annotated[Any, Depends(_reader)]


def _document(body: str, status: int = 200) -> HTMLResponse:
    text, policy = show.alone("Millpond", body)
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(text, status, headers)


def _overview(request: Request, _: Reader) -> Response:
    return _document(show.overview(request.query_params, embedded=False))


def _letters(request: Request, _: Reader) -> Response:
    return _document(show.letters(request.query_params, embedded=False))


def _letter(request: Request, user: Reader) -> Response:
    """Show one, to who may read the connection behind it: its bytes are raw."""
    conn_id = show.connection_of(show.place_of(request.query_params))
    details = ConnectionDetails(conn_id=conn_id)
    if not get_auth_manager().is_authorized_connection(method="GET", details=details, user=user):
        raise HTTPException(403, f"Raw events are for those who may read the connection {conn_id}.")
    return _document(show.letter(request.query_params, embedded=False))


def _refused(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    if status == 401:
        # Nobody is logged in, or no longer.
        login = get_auth_manager().get_url_login()
        return RedirectResponse(f"{login}{'&' if '?' in login else '?'}next={quote(str(request.url), safe='')}", 302)
    return _document(show.refused(str(getattr(error, "detail", "Not possible.")), embedded=False), status)


def application() -> FastAPI:
    """Make the application."""
    made = FastAPI(title="Millpond", docs_url=None, redoc_url=None, openapi_url=None)
    # Plain functions: what they wait for keeps a thread, and never the server's event loop.
    for path, view in (("/", _overview), ("/letters", _letters), ("/letter", _letter)):
        made.add_api_route(path, view, methods=["GET"], response_class=HTMLResponse)
    made.add_exception_handler(AnyHTTPException, _refused)
    return made
