import subprocess
import sys
import time

from foundry.memory import PeakMemory

MIB = 2**20
HOLD = "import sys, time; held = bytearray(int(sys.argv[1])); print(flush=True); time.sleep(60)"


def test_memory_of_a_child_counts() -> None:
    with PeakMemory() as before:
        time.sleep(0.1)
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(300 * MIB)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        with PeakMemory() as peak:
            time.sleep(0.1)
    finally:
        child.kill()
        child.communicate()
    assert 300 * MIB < peak.bytes - before.bytes < 400 * MIB
