"""What Airflow's plugin manager is told: the page Millpond, in the way of either major.

Owns the registration. Refuses to load a web framework before the web server asks: every process of Airflow reads its
plugins.
"""

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from millpond.airflow import compat

_NAME = "Millpond"


class MillpondPlugin(AirflowPlugin):
    """The page, and the menu entry that leads there."""

    name = "millpond"

    @cached_property
    def appbuilder_views(self) -> list[Any]:
        """Return the view of 2.10."""
        if compat.major() != 2:
            return []
        from millpond.airflow.page.flask_view import MillpondView

        return [{"name": _NAME, "category": "Browse", "view": MillpondView()}]

    @cached_property
    def fastapi_apps(self) -> list[Any]:
        """Return the application of 3.x."""
        if compat.major() != 3:
            return []
        from millpond.airflow.page.fastapi_view import application

        return [{"name": _NAME, "app": application(), "url_prefix": "/millpond"}]

    @cached_property
    def external_views(self) -> list[Any]:
        """Return the menu entry of 3.x; its address is relative to wherever the web UI is served."""
        if compat.major() != 3:
            return []
        return [
            {"name": _NAME, "href": "millpond/", "destination": "nav", "url_route": "millpond", "category": "browse"}
        ]
