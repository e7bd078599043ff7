"""Airflow's web server of either major for tests, and a browser in front of it.

Owns accounts with random passwords, and the flags of a Chromium that looks nothing up outside. Refuses to fetch a
browser: scripts/browser names Debian's.
"""

import json
import secrets
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from tests.airflow_environment import ROOT
from tests.airflow_services import Services
from tests.local_servers import until

PATIENCE_MS = 180_000
ROLES = {"admin": "Admin", "viewer": "Viewer"}
# In one process what `airflow users create` does twice and `airflow roles add-perms` once: a viewer may see the page.
_ACCOUNTS = """
import json, sys
from airflow.www.app import cached_app
passwords, roles = map(json.loads, sys.argv[1:])
security = cached_app().appbuilder.sm
with cached_app().app_context():
    viewer = security.find_role("Viewer")
    security.add_permission_to_role(viewer, security.create_permission("can_read", "Millpond"))
    for name, role in roles.items():
        assert security.add_user(name, name, name, f"{name}@x.y", security.find_role(role), password=passwords[name])
"""
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


class Web(Services):
    """A web server with two accounts; no scheduler."""

    def __init__(self, home: Path, major: int, dsn: str) -> None:
        super().__init__(home, major, dsn)
        self.passwords = {name: secrets.token_hex(8) for name in ROLES}
        self.address = f"http://127.0.0.1:{self.port}"
        if major == 3:
            kept = home / "passwords.json"
            kept.write_text(json.dumps(self.passwords))
            self.env |= {
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{one}:{one}" for one in ROLES),
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(kept),
            }
        else:
            self.env |= {
                "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
                "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(self.port),
                "AIRFLOW__WEBSERVER__WORKERS": "1",
                "AIRFLOW__WEBSERVER__SECRET_KEY": secrets.token_hex(16),
                "AIRFLOW__WEBSERVER__WARN_DEPLOYMENT_EXPOSURE": "False",
                # A browser test logs in more often than five times in 40 seconds, which Airflow allows.
                "AIRFLOW__FAB__AUTH_RATE_LIMITED": "False",
            }

    def up(self) -> None:
        """Make the database and the accounts, and start the server."""
        self.call("db", "migrate")
        if self.major == 2:
            # Before the server: both write to the same few rows.
            self.python("-c", _ACCOUNTS, json.dumps(self.passwords), json.dumps(ROLES))
        self.serve("api-server" if self.major == 3 else "webserver")
        until(lambda: self.get("/health" if self.major == 2 else "/api/v2/version")[0] == 200, 400)

    def get(self, path: str) -> tuple[int, str, str]:
        """Ask as nobody: status, where it leads, body."""

        class Stays(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *words: Any) -> None:
                return None

        try:
            with urllib.request.build_opener(Stays).open(self.address + path, timeout=60) as answer:
                return answer.status, "", answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Location") or "", error.read().decode(errors="replace")
        except OSError:
            return 0, "", ""

    def log_in(self, page: Page, name: str) -> None:
        """Log in, as a person does."""
        page.goto(f"{self.address}/login" if self.major == 2 else f"{self.address}/auth/login")
        page.locator("input[name=username]").fill(name)
        page.locator("input[name=password]").fill(self.passwords[name])
        page.locator("input[type=submit], button[type=submit]").first.click()
        page.wait_for_url(lambda url: "login" not in url, timeout=PATIENCE_MS)


def opened(chromium: Browser, **words: Any) -> Page:
    """Open a page in a context of its own, which waits as long as a busy machine may take."""
    context = chromium.new_context(**words)
    context.set_default_timeout(PATIENCE_MS)
    return context.new_page()


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    named = subprocess.run([ROOT / "scripts" / "browser"], capture_output=True, text=True, check=True)
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=named.stdout.strip(), args=_FLAGS)
        try:
            yield started
        finally:
            started.close()
