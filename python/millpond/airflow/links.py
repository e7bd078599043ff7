"""The buttons of a task in the web UI: to its dead letters and its report on the page Millpond, and to Spark's page.

Owns addresses. Refuses to name a server: 2.10 asks in the web server, from what the task left in XCom; 3.x asks in the
task's own process when it ends, also when it failed.
"""

from typing import Any
from urllib.parse import urlencode, urlsplit

from millpond.airflow import compat
from millpond.airflow.compat import BaseOperatorLink
from millpond.airflow.page import words


def _page(path: str, query: dict[str, str], anchor: str = "") -> str:
    """Return an address of the page, below wherever the web UI is served."""
    section = "api" if compat.major() == 3 else "webserver"
    base = urlsplit(str(compat.conf.get(section, "base_url", fallback="") or "")).path.rstrip("/")
    return f"{base}/millpond/{path}{'?' if query else ''}{urlencode(query)}{anchor}"


def _books(operator: Any, ti_key: Any) -> dict[str, Any]:
    """Return the result of a task, empty when it has left none."""
    told = getattr(operator, "_told_of", None)
    if told:
        return {"dead_letters_in": told.get("dead_letters_in")} | (told.get("books") or {})
    if compat.major() == 3:
        return {}
    found = compat.XCom.get_value(ti_key=ti_key, key="return_value")
    return found if isinstance(found, dict) else {}


class LettersLink(BaseOperatorLink):
    """Where the dead letters of a bridge or a sink are looked at."""

    @property
    def name(self) -> str:
        """Return the button's text."""
        return "Dead letters"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the list of the task's dead letters, or the page's part of them."""
        place = _books(operator, ti_key).get("dead_letters_in")
        return _page("letters", place) if place else _page("", {}, "#letters")


class ReportLink(BaseOperatorLink):
    """Where the report of an aggregate is looked at."""

    @property
    def name(self) -> str:
        """Return the button's text."""
        return "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the report of the task's last date, or the page's part of reports."""
        books = _books(operator, ti_key)
        table, dates = words.first(list(books.get("rows") or {})), books.get("dates") or []
        query = {"table": table} if table else {}
        return _page("", query | ({"date": max(dates)} if dates else {}), "#reports")


class SparkLink(BaseOperatorLink):
    """Where Spark shows the application of an aggregate: its own page while it runs, then a history server's."""

    key = "_link_SparkLink"

    @property
    def name(self) -> str:
        """Return the button's text."""
        return "Spark"

    @property
    def xcom_key(self) -> str:
        """Return what 3.x keeps the address under; the task leaves it there as soon as it has a session."""
        return self.key

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, empty before there is a session."""
        spark = _books(operator, ti_key).get("spark") or (getattr(operator, "_told_of", None) or {}).get("spark") or {}
        address = spark.get("history") or spark.get("page")
        if not address and compat.major() != 3:
            address = compat.XCom.get_value(ti_key=ti_key, key=self.key)
        return str(address or "")
