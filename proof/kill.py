"""See kill.sh."""

import random
import subprocess
import sys
import time

from load import Load
from programs import WORK, Store, fail, finish, judge, wait_until

rounds = int(sys.argv[1])
store = Store(WORK + "/db")
load = Load(store, "mixed")
chance = random.Random()
killed, killed_starting, slowest = 0, 0, 0.0


def kill_while_starting(before):
    """Starts the daemon with a command, and kills it some milliseconds later."""
    global killed_starting
    command = store.start("status", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until(lambda: store.daemon() not in (None, before) or command.poll() is not None, 5)
    time.sleep(chance.uniform(0, 0.015))
    process = store.daemon()
    if process not in (None, before) and store.kill(process):
        killed_starting += 1
    _, words = command.communicate()
    judge(words, "status")


store.run("status", expect=0)
load.start()
for number in range(1, rounds + 1):
    time.sleep(chance.uniform(0, 0.3))
    process = store.kill()
    killed += process is not None
    if number % 4 == 0:
        kill_while_starting(process)
    began = time.monotonic()
    ended = store.run("status")
    slowest = max(slowest, time.monotonic() - began)
    if ended.code != 0:
        fail(f"round {number}: the daemon did not start: {ended.words()}")
    if number % 10 == 0 or number == rounds:
        load.stop()
        load.verify(f"round {number}")
        load.start()
load.stop()
if len(store.daemons()) > 1:
    fail("more than one daemon at the end")
if killed < rounds * 0.8:
    fail(f"only {killed} of {rounds} rounds found a daemon to kill")

figures = load.figures
finish(
    "kill",
    f"{rounds} rounds, {killed} kills under load and {killed_starting} while starting, "
    f"{figures['acknowledged']} writes acknowledged, {figures['unanswered']} unanswered, {figures['lost']} lost, "
    f"{figures['checked']} reads checked, slowest first answer {slowest * 1000:.0f} ms",
)
