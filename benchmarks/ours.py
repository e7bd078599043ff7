"""One run of a verb in a process of its own, `ours.py VERB ARGUMENTS`; the answer is that of every contender."""

import json
import sys
import time

from answer import answer

import millpond

verb, arguments = sys.argv[1], json.loads(sys.argv[2])
began = time.perf_counter()
result = getattr(millpond, verb)(*arguments.pop("servers"), **arguments)
seconds = time.perf_counter() - began
answer(
    result.counted if verb == "aggregate" else result.read,
    seconds,
    phases=result.to_dict().get("phases"),
    transactions=result.to_dict().get("transactions"),
)
