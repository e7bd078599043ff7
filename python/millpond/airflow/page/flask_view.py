"""The page in Airflow 2.10: a view of Flask-AppBuilder, inside Airflow's own frame and behind its permissions.

Owns addresses, who may see them, and the frame. Refuses to read anything itself.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from airflow.auth.managers.models.resource_details import ConnectionDetails
from airflow.www.extensions.init_auth_manager import get_auth_manager
from flask import make_response, redirect, render_template_string, request
from flask_appbuilder import BaseView, expose
from markupsafe import Markup

from millpond.airflow.page import show

RESOURCE = "Millpond"
_FRAME = """{% extends "airflow/main.html" %}
{% block title %}Millpond{% endblock %}
{% block head_css %}{{ super() }}<style>{{ millpond_style }}</style>{% endblock %}
{% block content %}{{ super() }}{{ millpond_body }}{% endblock %}"""


def _guarded(view: Callable[["MillpondView"], str]) -> Callable[["MillpondView"], Any]:
    """Let in who may read the resource `Millpond`; others go to the login, or are told."""

    @wraps(view)
    def guarded(self: "MillpondView") -> Any:
        manager = get_auth_manager()
        if not manager.is_logged_in():
            return redirect(manager.get_url_login(next_url=request.url))
        if not manager.is_authorized_custom_view(method="GET", resource_name=RESOURCE):
            body = show.refused("Your roles lack “can read on Millpond”.", embedded=True)
            return _framed(self.appbuilder, body, 403)
        return _framed(self.appbuilder, view(self))

    return guarded


def _framed(appbuilder: Any, body: str, status: int = 200) -> Any:
    body, style = Markup(body), Markup(show.style())  # noqa: S704 - templates of ours, escaped
    text = render_template_string(_FRAME, appbuilder=appbuilder, millpond_body=body, millpond_style=style)
    answer = make_response(text, status)
    answer.headers["Cache-Control"] = "no-store"
    return answer


class MillpondView(BaseView):
    """Overview, dead letters, one letter."""

    route_base = "/millpond"
    default_view = "overview"
    class_permission_name = RESOURCE
    base_permissions = ("can_read",)

    @expose("/")
    @_guarded
    def overview(self) -> str:
        """Show everything."""
        return show.overview(request.args, embedded=True)

    @expose("/letters")
    @_guarded
    def letters(self) -> str:
        """List dead letters."""
        return show.letters(request.args, embedded=True)

    @expose("/letter")
    @_guarded
    def letter(self) -> str:
        """Show one, to who may read the connection behind it: its bytes are raw."""
        conn_id = show.connection_of(show.place_of(request.args))
        if not get_auth_manager().is_authorized_connection(method="GET", details=ConnectionDetails(conn_id=conn_id)):
            return show.refused(f"Raw events are for those who may read the connection {conn_id}.", embedded=True)
        return show.letter(request.args, embedded=True)
