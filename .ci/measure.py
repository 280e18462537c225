"""Run a command; print its time and peak memory, which has a limit. Usage: measure.py GIGABYTES COMMAND"""

import resource
import subprocess
import sys
import time

limit, *command = sys.argv[1:]
start = time.monotonic()
code = subprocess.run(command, check=False).returncode
seconds = time.monotonic() - start
# Of the largest process among all that ran; in bytes on macOS and in KiB elsewhere.
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(f"{' '.join(command)}: {seconds:.0f} s, peak memory {peak / 1e9:.2f} GB")
if code == 0 and peak >= float(limit) * 1e9:
    sys.exit(f"that is not below {limit} GB")
sys.exit(code)
