"""See damage.sh."""

import base64
import json
import os
import random
import shutil
import sys

from programs import WORK, Store, fail, finish

places = int(sys.argv[1])
seed = os.environ.get("SEED", str(random.randrange(10**6)))
chance = random.Random(seed)
whole, store = Store(WORK + "/whole"), Store(WORK + "/db")
TAIL = 64 * 1024


def make():
    """About 2,000 keys: imported at once, set, overwritten and removed one by one at the end, some of them large.
    Returns what must be there, and every value that any key ever had."""
    now = {f"key/{n}": chance.randbytes(chance.randint(0, 400)) for n in range(1850)}
    lines = "".join(
        json.dumps({"key": key, "value_base64": base64.b64encode(value).decode()}) + "\n" for key, value in now.items()
    )
    whole.run("import", data=lines.encode(), expect=0)
    ever = {key: {value} for key, value in now.items()}
    for n in range(150):
        key = f"key/{n * 20}" if n < 75 else f"late/{n}"
        value = chance.randbytes(chance.choice((10, 100, 1000, 4096)) if n % 10 else 100_000 + n)
        whole.set(key, value)
        now[key] = value
        ever.setdefault(key, set()).add(value)
    for n in range(25):
        key = f"key/{n * 30 + 7}"
        whole.run("rm", key, expect=0)
        del now[key]
    whole.stop()
    return now, ever


def end_of_data(path):
    """Where the last byte that is not zero ends: the index file is made longer than what is in it."""
    with open(path, "rb") as file:
        return len(file.read().rstrip(b"\0"))


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ (1 << chance.randrange(8))]))
    return f"a bit flipped at {at} of {os.path.getsize(path)} in {os.path.relpath(path, store.directory)}"


def cut(path, size):
    os.truncate(path, size)
    return f"{os.path.relpath(path, store.directory)} cut off at {size}"


def damage(number):
    """Damages the copy: four in five at the index's tail, the others in any file but the key."""
    index = store.directory + "/store/sled/db"
    end = end_of_data(index)
    if number % 5 < 2:
        return flip(index, chance.randrange(max(0, end - TAIL), end))
    if number % 5 < 4:
        return cut(index, chance.randrange(max(0, end - TAIL), end))
    if number % 10 == 4:
        return flip(index, chance.randrange(end))
    files = [
        os.path.join(where, name)
        for where, _, names in os.walk(store.directory)
        for name in names
        if name not in ("key", "lock", "kvassd.log") and os.path.isfile(os.path.join(where, name))
    ]
    path = chance.choice([path for path in sorted(files) if os.path.getsize(path)])
    size = os.path.getsize(path)
    return flip(path, chance.randrange(size)) if chance.random() < 0.5 else cut(path, chance.randrange(size))


def in_words(ended, what, command):
    """A refusal is exit 3 and a sentence."""
    if ended.code != 3 or not ended.err.startswith(b"kvass: "):
        fail(f"{what}: `{command}` ended with {ended.code}: {ended.words()}")


def values(what, keys):
    """What the store holds, by one export; where that is refused, key by key. None: this value is refused in words."""
    exported = store.run("export")
    if exported.code == 0:
        found = {}
        for line in exported.out.splitlines():
            entry = json.loads(line)
            if "value_base64" in entry:
                found[entry["key"]] = base64.b64decode(entry["value_base64"])
            elif "key" in entry:
                found[entry["key"]] = entry["value"].encode()
        return found
    found = {}
    for key in keys:
        ended = store.run("get", key)
        if ended.code == 0:
            found[key] = ended.out
        else:
            in_words(ended, what, "get " + key)
            if ended.code == 3:
                found[key] = None
    return found


def look(what):
    """Opens the damaged store. Whether it was refused, served whole, or served without some values."""
    listed = store.run("ls", "-0")
    if listed.code != 0:
        in_words(listed, what, "ls")
        return "refused"
    keys = [key.decode() for key in listed.out.split(b"\0")[:-1]]
    missing, extra = set(must) - set(keys), set(keys) - set(must)
    if missing or extra:
        fail(f"{what}: served with {len(missing)} keys missing and {len(extra)} that were removed")
        return "served wrong"
    found = values(what, keys)
    wrong = [key for key, value in must.items() if found.get(key, b"\1missing") not in (value, None)]
    if wrong:
        fail(f"{what}: served with {len(wrong)} wrong or missing values, {wrong[0]} among them")
        return "served wrong"
    return "served in part" if None in found.values() else "served whole"


def repair(what):
    """Repairs a refused store. The share of the keys that came back with their newest value."""
    ended = store.run("doctor", "--repair")
    if ended.code not in (0, 1):
        fail(f"{what}: `doctor --repair` ended with {ended.code}: {ended.words()}")
        return 0
    listed = store.run("ls", "-0")
    if listed.code != 0:
        fail(f"{what}: not readable after the repair: {listed.words()}")
        return 0
    keys = [key.decode() for key in listed.out.split(b"\0")[:-1]]
    found = values(what + ", repaired", keys)
    for key, value in found.items():
        if value is not None and value not in ever.get(key, ()):
            fail(f"{what}: after the repair {key} has a value that was never written")
    store.set("written after the repair", b"yes")
    return sum(found.get(key) == value for key, value in must.items()) / len(must)


must, ever = make()
counts = {"refused": 0, "served whole": 0, "served in part": 0, "served wrong": 0}
back = []
for number in range(places):
    shutil.copytree(whole.directory, store.directory, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    what = f"place {number} (SEED={seed}): {damage(number)}"
    outcome = look(what)
    counts[outcome] += 1
    if outcome == "refused":
        back.append(repair(what))
    store.kill_all()
    for name in os.listdir(WORK):
        # A repair moves the damaged store aside, inside the directory or next to it.
        if name.startswith("db"):
            shutil.rmtree(os.path.join(WORK, name))

average = 100 * sum(back) / len(back) if back else 100
finish(
    "damage",
    f"{places} places in a store of {len(must)} keys: {counts['refused']} refused in words, {counts['served whole']} served whole, "
    f"{counts['served in part']} with values refused, {counts['served wrong']} served wrong; "
    f"repair brought back {average:.1f} % of the keys of those refused, {sum(share == 1 for share in back)} of {len(back)} whole",
)
