"""See crowd.sh."""

import os
import sys
import time

from programs import KVASS, WORK, Store, fail, finish, judge

clients = int(sys.argv[1])
store = Store(WORK + "/db")
good, slowest = 0, 0.0


def crowd(name):
    """Lets all clients go at the same moment: each has forked and waits for a pipe to close."""
    global good, slowest
    wait, go = os.pipe()
    words = [open(f"{WORK}/{name}.{number}", "w+b") for number in range(clients)]
    processes = []
    for number in range(clients):
        process = os.fork()
        if process == 0:
            try:
                os.close(go)
                os.read(wait, 1)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(words[number].fileno(), 1)
                os.dup2(words[number].fileno(), 2)
                key = f"{name}/{number}"
                os.execve(KVASS, [KVASS, "set", key, f"value of {key}"], store.environment)
            finally:
                os._exit(126)
        processes.append(process)
    os.close(wait)
    began = time.monotonic()
    os.close(go)
    for number, process in enumerate(processes):
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        words[number].seek(0)
        said = words[number].read()
        judge(said, "set")
        good += code == 0
        if code != 0:
            fail(f"{name}: client {number} ended with {code}: {said.decode(errors='replace').strip()}")
    slowest = max(slowest, time.monotonic() - began)
    for file in words:
        file.close()
    keys = store.keys() or []
    wanted = sorted((f"{name}/{number}" for number in range(clients)), key=str.encode)
    if [key for key in keys if key.startswith(name + "/")] != wanted:
        fail(f"{name}: {clients} keys were set, `ls` shows others")
    if store.run("get", f"{name}/0", expect=0).out != f"value of {name}/0".encode():
        fail(f"{name}: a value is not what was set")
    # Daemons that lost the race leave by themselves.
    end = time.monotonic() + 10
    while len(store.daemons()) > 1 and time.monotonic() < end:
        time.sleep(0.05)
    if len(store.daemons()) != 1:
        fail(f"{name}: {len(store.daemons())} daemons, not one")


crowd("new")
store.stop()
crowd("stopped")
store.kill()
crowd("killed")
total = len(store.keys() or [])
if total != 3 * clients:
    fail(f"{total} keys, not {3 * clients}")
finish(
    "crowd",
    f"3 cold starts (new, stopped, killed) x {clients} clients at once, {good} exits 0, {total} keys, "
    f"{len(store.daemons())} daemon, slowest crowd {slowest * 1000:.0f} ms",
)
