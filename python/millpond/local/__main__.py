"""``python -m millpond.local``: the same commands as ``millpond local``."""

from millpond.local.cli import local

if __name__ == "__main__":
    local()
