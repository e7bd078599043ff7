"""One run of a verb as mapped tasks would do it, `shards.py N VERB ARGUMENTS`: N processes at once, each its own shard.

The slowest shard's seconds count, the CPU seconds and the peaks of all.
"""

import json
import subprocess
import sys
from pathlib import Path

OURS = Path(__file__).with_name("ours.py")

count, verb, arguments = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
running = []
for i in range(count):
    words = json.dumps(arguments | {"shard": [i, count]})
    running.append(subprocess.Popen([sys.executable, str(OURS), verb, words], stdout=subprocess.PIPE, text=True))
answers = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
together = {"events": sum, "seconds": max, "cpu_s": sum, "peak_mb": sum}
print(json.dumps({name: fold(answer[name] for answer in answers) for name, fold in together.items()}))
