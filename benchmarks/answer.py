"""What every contender prints: events, seconds without the start of the process, and peak memory of the process."""

import json
import re
from pathlib import Path


def answer(events: int, seconds: float, **more: object) -> None:
    """Print the answer. The peak is the kernel's own for this address space (VmHWM)."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(json.dumps({"events": events, "seconds": seconds, "peak_mb": int(peak[1]) / 1024} | more))
