"""TOML files of definitions. Loaded by those who read one: a run without a file does not wait for the parser."""

import tomllib
from pathlib import Path
from typing import Any

from millpond.errors import ConfigError


def read(what: str, path: Path) -> dict[str, Any]:
    """Return a file's tables.

    Raises:
        ConfigError: It cannot be read, or is no TOML; `what` says what was wanted of it.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{what}: {path} cannot be read ({error.strerror})", "check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what}: {path} is no valid TOML: {error}", "check the file") from None
