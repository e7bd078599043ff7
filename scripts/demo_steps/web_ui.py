"""Airflow's web UI left running after the demo, with the page Millpond in it.

Owns the account, whose password is made anew each time, and the end by Ctrl-C. Refuses to listen anywhere but on the
loopback address.
"""

import secrets
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from demo_steps.airflow_home import AirflowHome

_USER = "admin"
_PATIENCE_S = 600


def serve(home: AirflowHome, port: int, tell: Callable[[str], None]) -> int:
    """Start the web server and a scheduler, say where and how to log in, and wait for Ctrl-C."""
    port = port if _is_free(port) else _free()
    password = secrets.token_urlsafe(12)
    home.env |= {
        "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
        "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(port),
        "AIRFLOW__WEBSERVER__WORKERS": "1",
        "AIRFLOW__WEBSERVER__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__WEBSERVER__WARN_DEPLOYMENT_EXPOSURE": "False",
    }
    # One account, its password made anew: an earlier demo's is not kept anywhere.
    # With "=": one in 64 begins with a dash and would be taken for an option.
    account = ("-u", _USER, f"--password={password}")
    said = home.call("users", "create", *account, "-r", "Admin", "-f", "Demo", "-l", "Demo", "-e", "a@b.c")
    if "already exist" in said:
        home.call("users", "reset-password", *account)
    with home.running("webserver") as server, home.running("scheduler", "--skip-serve-logs"):
        deadline = time.monotonic() + _PATIENCE_S
        while not _answers(port):
            if server.poll() is not None or time.monotonic() > deadline:
                print(f"demo: the web server did not start; see {home.home / 'webserver.log'}")
                return 1
            time.sleep(0.3)
        # A shell that starts programs in the background has them ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        tell(f"Airflow's web UI: http://127.0.0.1:{port}/millpond/ (user {_USER}, password {password}); Ctrl-C ends it")
        by_itself = True
        try:
            server.wait()
        except KeyboardInterrupt:
            by_itself = False
            # Another Ctrl-C would leave processes behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print("\ndemo: ending Airflow", flush=True)
    print(f"demo: Airflow has ended{f' by itself; see {home.home}/webserver.log' if by_itself else ''}")
    return int(by_itself)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
