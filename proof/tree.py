"""See tree.sh."""

import os
import stat
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from programs import WORK, Store, fail, finish

limit, roots = int(sys.argv[1]), sys.argv[2:]
store = Store(WORK + "/db")

# Values that a tool trips over: blank, newlines, NUL, not UTF-8, and both sides of every size that matters inside.
SPECIAL = {
    "empty": b"",
    "newline": b"\n",
    "newlines": b"\n\n\n",
    "blank": b" ",
    "return": b"\r\n",
    "nul": b"\0",
    "nuls": b"\0" * 5000,
    "not utf-8": b"\xff\xfe\x80\xc3(",
    "utf-8 cut short": "👋".encode()[:-1],
    "no newline at the end": b"one\ntwo",
    "number": b"-5",
    "option": b"--help",
    "every byte": bytes(range(256)) * 3,
    **{f"size {size}": os.urandom(size) for size in (1, 4095, 4096, 4097, 32767, 32768, 32769, 65536, 65537,
                                                     131071, 131072, 131073, 1048576, 4194304, 4194305)},
}


def all_files():
    """Every regular file that can be read, with a key for it."""
    found = []
    for root in roots:
        for where, _, names in os.walk(root):
            for name in names:
                path = os.path.join(where, name)
                try:
                    what = os.lstat(path)
                    key = path.strip("/").encode("utf-8", "surrogateescape").decode("utf-8")
                except (OSError, UnicodeDecodeError):
                    continue
                if stat.S_ISREG(what.st_mode) and os.access(path, os.R_OK) and len(key.encode()) <= 1024:
                    found.append((key, path, what.st_size))
    return sorted(found)


def chosen(files):
    if not limit or len(files) <= limit:
        return files
    largest = sorted(files, key=lambda file: -file[2])[: max(1, limit // 20)]
    rest = max(1, limit - len(largest))
    return sorted(set(largest) | {files[index * len(files) // rest] for index in range(rest)})


def put(file):
    """Sets a file; a set that a kill cut off is repeated, as a script would."""
    key, path, _ = file
    for _ in range(5):
        with open(path, "rb") as source:
            ended = store.run("set", key, stdin=source, expect=(0, 3))
        if ended.code == 0:
            return
    fail(f"{key}: could not be set in five attempts: {ended.words()}")


def same(file):
    """Compares what comes out with the file, through a file of its own."""
    key, path, _ = file
    out = f"{WORK}/out.{threading.get_ident()}"
    with open(out, "wb") as target:
        ended = store.run("get", key, stdout=target)
    if ended.code != 0:
        fail(f"{key}: `get` ended with {ended.code}: {ended.words()}")
        return
    with open(out, "rb") as here, open(path, "rb") as there:
        while True:
            one, other = here.read(1 << 20), there.read(1 << 20)
            if one != other:
                fail(f"{key}: what came out is not {path}")
                return
            if not one:
                return


def check(when):
    """Reads everything back, and the list of keys."""
    before = time.monotonic()
    list(workers.map(same, files))
    for name, value in SPECIAL.items():
        if store.get("special/" + name).out != value:
            fail(f"{when}: special/{name} is not what was set")
    target = WORK + "/whole"
    store.run("get", "special/every byte", "-o", target, expect=0)
    if open(target, "rb").read() != SPECIAL["every byte"]:
        fail(f"{when}: `get -o` wrote something else")
    wanted = sorted([key for key, _, _ in files] + ["special/" + name for name in SPECIAL], key=str.encode)
    if store.keys() != wanted:
        fail(f"{when}: `ls` does not show exactly the keys that were set, in byte order")
    return time.monotonic() - before


def kill_now_and_then():
    while not done.wait(3):
        store.kill()


files = chosen(all_files())
workers = ThreadPoolExecutor(4)
done = threading.Event()
killer = threading.Thread(target=kill_now_and_then)
killer.start()
began = time.monotonic()
for name, value in SPECIAL.items():
    put_value = store.set("special/" + name, value, expect=(0, 3))
    if put_value.code == 3:
        store.set("special/" + name, value)
list(workers.map(put, files))
done.set()
killer.join()
inward = time.monotonic() - began
outward = check("as it was set")
if store.kill() is None:
    fail("there was no daemon to kill")
check("after kill -9")
store.stop()
check("after a stop")

size = sum(size for _, _, size in files)
finish(
    "tree",
    f"{len(files)} files of {' '.join(roots)} and {len(SPECIAL)} special values, {size / 1e6:.0f} MB, "
    f"in under kills in {inward:.0f} s, compared three times (live, after kill -9, after a stop; {outward:.0f} s each)",
)
