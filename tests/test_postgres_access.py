"""Where libpq finds what a DSN leaves open: the environment, a service, a password file. psycopg reads it first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import millpond

PASSWORD = "p:a\\s's=w rd"


@pytest.fixture
def account(servers: Any, name: str, postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A role with a password of its own, in a process that knows nothing of PostgreSQL."""
    for variable in (
        "PGHOST",
        "PGPORT",
        "PGUSER",
        "PGDATABASE",
        "PGPASSWORD",
        "PGPASSFILE",
        "PGSERVICE",
        "PGSERVICEFILE",
    ):
        monkeypatch.delenv(variable, raising=False)
    quoted = PASSWORD.replace("'", "''")
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{quoted}'")
        connection.execute(f"GRANT USAGE, CREATE ON SCHEMA {name} TO {name}")
    at = {key: str(value) for key, value in conninfo_to_dict(servers.dsn).items()}
    yield {"host": at["host"], "port": at["port"], "dbname": at["dbname"], "user": name}
    # The environment is still the test's.
    with psycopg.connect(f"{servers.dsn}?sslmode=disable", autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def works(name: str, dsn: str) -> None:
    """Both libpq and we connect as the role, and we find its schema empty."""
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (name,)
    with pytest.raises(millpond.ConfigError, match="nothing was published"):
        millpond.runs(dsn, schema=name)


def refused(dsn: str, *words: str) -> None:
    with pytest.raises(millpond.ConfigError) as caught:
        millpond.runs(dsn)
    told = f"{caught.value} {caught.value.hint}"
    assert all(word in told for word in words), told
    assert PASSWORD not in told


def entry(account: dict[str, str], password: str = PASSWORD, **other: str) -> str:
    fields = [*(account | other).values(), password]
    return ":".join(field.replace("\\", "\\\\").replace(":", "\\:") for field in fields) + "\n"


def test_the_environment_says_all(name, account, monkeypatch):
    words = {"host": "HOST", "port": "PORT", "dbname": "DATABASE", "user": "USER"}
    for word, variable in words.items():
        monkeypatch.setenv(f"PG{variable}", account[word])
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    for dsn in ("", "postgresql://", "connect_timeout=5", "postgresql:///?application_name=x"):
        works(name, dsn)
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    works(name, f"host={account['host']}")
    monkeypatch.setenv("PGHOST", account["host"])
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    refused("", "sslrootcert")
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGREQUIREAUTH", "scram-sha-256")
    refused("", "require_auth", "PGREQUIREAUTH")
    monkeypatch.delenv("PGREQUIREAUTH")
    monkeypatch.delenv("PGSSLMODE")
    monkeypatch.setenv("PGREQUIRESSL", "1")
    refused("", "TLS")


def test_a_service_fills_what_the_dsn_leaves_open(name, account, home, monkeypatch):
    lines = [f"{word}={value}" for word, value in account.items()]
    text = "# ours\n[other]\nhost=nowhere.invalid\n\n[nightly]\n" + "\n".join(lines) + f"\npassword={PASSWORD}\n"
    (home / ".pg_service.conf").write_text(text)
    for dsn in ("service=nightly", "postgresql:///?service=nightly", f"service=nightly user={name}"):
        works(name, dsn)
    monkeypatch.setenv("PGSERVICE", "nightly")
    monkeypatch.setenv("PGUSER", "nobody at all")
    works(name, "")
    refused("service=weekly", "weekly")
    other = home / "elsewhere"
    other.write_text(text.replace("nightly", "weekly"))
    monkeypatch.setenv("PGSERVICEFILE", str(other))
    works(name, "service=weekly")
    other.write_text("[weekly]\nhost=h\nservice=x\n")
    refused("service=weekly", "line 3")
    other.write_text("[weekly]\nhosst=h\n")
    refused("service=weekly", "host")
    monkeypatch.setenv("PGSERVICEFILE", str(home / "missing"))
    refused("service=weekly", "missing")
    folder = home / "all"
    folder.mkdir()
    (folder / "pg_service.conf").write_text(text.replace("nightly", "yearly"))
    monkeypatch.delenv("PGSERVICEFILE")
    monkeypatch.setenv("PGSYSCONFDIR", str(folder))
    works(name, "service=yearly")


def test_a_password_file_is_read_by_host_port_database_and_user(name, account, home, monkeypatch):
    dsn = " ".join(f"{word}={value}" for word, value in account.items())
    refused(dsn, "password", ".pgpass")
    file = home / ".pgpass"
    wrong = entry(account, "wrong", port="1") + entry(account, "wrong", user="x") + entry(account, "wrong", host="*.*")
    for right in (entry(account), f"*:*:*:{name}:{entry(account).rpartition(name + ':')[2]}"):
        file.write_text(f"# {entry(account, 'comment')}{wrong}{right}{entry(account, 'too late')}")
        file.chmod(0o600)
        works(name, dsn)
    file.chmod(0o640)
    refused(dsn, "chmod 0600", ".pgpass")
    file.chmod(0o600)
    file.write_text(wrong)
    refused(dsn, "password")
    other = home / "other"
    other.write_text(entry(account))
    other.chmod(0o600)
    works(name, f"{dsn} passfile={other}")
    monkeypatch.setenv("PGPASSFILE", str(other))
    works(name, dsn)
    monkeypatch.setenv("PGPASSFILE", str(home / "missing"))
    refused(dsn, "missing", "passfile")


def test_each_host_has_a_password_of_its_own(name, account, home):
    file = home / ".pgpass"
    file.write_text(entry(account, "wrong", port="1") + entry(account))
    file.chmod(0o600)
    two = f"host={account['host']},{account['host']} port=1,{account['port']} dbname={account['dbname']} user={name}"
    works(name, two)
    works(name, f"{two} load_balance_hosts=random target_session_attrs=read-write")
    works(name, f"{two} target_session_attrs=primary")
    refused(two.replace("port=1,", "port=1,2,"), "lengths")


def test_the_first_host_that_refuses_ends_the_search(name, account):
    """As for libpq: another host is for one that does not answer."""
    words = f"port={account['port']} dbname={account['dbname']} user={name} password=wrong"
    refused(f"host={account['host']},nowhere.invalid {words}", "28P01")


def test_a_server_that_does_not_answer_is_worth_a_retry(account):
    dsn = f"host={account['host']} port=1 user=u connect_timeout=2"
    with pytest.raises(millpond.ExternalError) as caught:
        millpond.runs(dsn)
    assert caught.value.retryable
    with pytest.raises(millpond.ConfigError, match="host"):
        millpond.runs("dbname=x")
