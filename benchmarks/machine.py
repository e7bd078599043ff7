"""One line about where the figures were taken."""

import platform
import subprocess

import psutil


def describe() -> str:
    """Return architecture, cores, memory and versions."""
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    memory = psutil.virtual_memory().total >> 30
    return f"{platform.machine()}, {psutil.cpu_count()} cores, {memory} GB, Python {platform.python_version()}, {rustc}"
