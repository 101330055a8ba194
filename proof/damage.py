"""See damage.sh."""

import hmac
import http.client
import os
import random
import shutil
import subprocess
import sys
import time

from machines import Machine, Server
from places import Hit, copy_store, files_of, is_never_written
from programs import WORK, Store, exported, fail, finish, wait_until
from proxy import Network, Proxy

places = int(sys.argv[1])
seed = os.environ.get("SEED", str(random.randrange(10**6)))
chance = random.Random(seed)
network = Network()
network.calm = True
way = Proxy(network, 0)
SIZES = (4_097, 20_000, 32_768, 70_000, 300_000)
counts, back, outcomes, figures = {}, [], {}, {"links": 0, "mended": 0, "live": 0, "forgotten": 0}


def content():
    """What the store is to hold, and every value that a key ever had."""
    now = {f"key/{n}": chance.randbytes(chance.randint(0, 400)) for n in range(120)}
    now.update({f"large/{size}": chance.randbytes(size) for size in SIZES})
    ever = {key: {value} for key, value in now.items()}
    return now, ever


def make():
    """A device and a full server in step, the same device with a blind server, and what must be there."""
    device, full, blind = Machine("device"), Server("full"), Server("blind")
    now, ever = content()
    for key, value in now.items():
        device.set(key, value)
    full.set_key(device.key())
    full.begin()
    way.target = full.port
    device.run("config", "remote", f"127.0.0.1:{way.port}", expect=0)
    for n in range(0, 60, 2):
        # Versions that were replaced lie in the log beside those that count.
        key, value = f"key/{n}", chance.randbytes(chance.choice((10, 1000, 4096)))
        device.set(key, value)
        now[key] = value
        ever[key].add(value)
    for n in (7, 27):
        device.run("rm", f"key/{n}", expect=0)
        del now[f"key/{n}"]
    link = device.run("url", f"large/{SIZES[-1]}", expect=0).out.decode().strip()
    device.run("sync", "--timeout", "60s", expect=0)
    device.stop()
    later = {"later/large": chance.randbytes(200_000), "later/small": b"later"}
    blind.run("config", "key", data=server_key(full), expect=0)
    blind.begin()
    way.target = blind.port
    device.run("sync", "--timeout", "60s", expect=0)
    device.stop()
    blind.end(False)
    for key, value in later.items():
        full.set(key, value)
    full.end(False)
    half_taken(device, full)
    for name in ("device", "full", "blind"):
        os.rename(f"{WORK}/{name}", f"{WORK}/whole-{name}")
    return now, now | later, ever | {key: {value} for key, value in later.items()}, link.split("://", 1)[1].split("/", 1)[1]


def server_key(store):
    return store.run("config", "server-key", expect=0).out


def half_taken(device, full):
    """A large value that the device had begun to take when it was switched off."""
    (name,) = set(os.listdir(full.directory + "/blobs")) - set(os.listdir(device.directory + "/blobs"))
    with open(f"{full.directory}/blobs/{name}", "rb") as file:
        sealed = file.read()
    half = f"{device.directory}/blobs/{name}-{id_of(device, 'later/large')}.down"
    with open(half, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        # Its first chunks and the list of hashes at its end.
        file.write(sealed[:98_400] + bytes(len(sealed) - 99_000) + sealed[-600:])
    way.cut()
    device.run("ls", expect=0)
    device.stop()
    way.mend()
    if not os.path.exists(half):
        fail("a start removes half a large value, so that no damage of it counts")


def id_of(store, key):
    """The id of a key's record, in hex, as in docs/format.md."""
    with open(store.directory + "/key") as file:
        encryption_key = bytes.fromhex(file.readline().strip())
    prk = hmac.digest(bytes(32), encryption_key, "sha256")
    key_of_ids = hmac.digest(prk, b"kvass v1 id\x01", "sha256")
    parts = (len(part).to_bytes(8, "big") + part for part in (b"kvass v1 id", key.encode()))
    return hmac.digest(key_of_ids, b"".join(parts), "sha256")[:16].hex()


def in_words(ended, what, command):
    """A refusal is exit 3 and a sentence."""
    if ended.code != 3 or not ended.err.startswith(b"kvass: "):
        fail(f"{what}: `{command}` ended with {ended.code}: {ended.words()}")


def values(what, store, keys):
    """What a store gives: by one export, or where that is refused by key. `None`: it is refused in words."""
    ended = store.run("export")
    if ended.code == 0:
        return exported(ended.out.splitlines())
    in_words(ended, what, "export")
    found = {}
    for key in keys:
        ended = store.run("get", key)
        found[key] = ended.out if ended.code == 0 else None
        if ended.code != 0:
            in_words(ended, what, "get " + key)
            if not must_all[key].startswith(ended.out):
                fail(f"{what}: `get {key}` printed wrong bytes before it was refused")
            ended = store.run("get", key, "-o", WORK + "/taken")
            if ended.code != 3 or os.path.exists(WORK + "/taken"):
                fail(f"{what}: `get -o` of {key} ended with {ended.code}, and left a file or not")
    return found


def look(what, store, expected):
    """Reads all of a damaged store: `refused`, `whole`, `in part` or `wrong`, and the keys whose values are refused."""
    listed = store.run("ls", "-0")
    if listed.code != 0:
        in_words(listed, what, "ls")
        return "refused", []
    keys = [key.decode() for key in listed.out.split(b"\0")[:-1]]
    if set(keys) != set(expected):
        fail(f"{what}: served with {len(set(expected) - set(keys))} keys missing and {len(set(keys) - set(expected))} too many")
        return "wrong", []
    found = values(what, store, keys)
    wrong = [key for key, value in expected.items() if found.get(key, b"\1missing") not in (value, None)]
    if wrong:
        fail(f"{what}: served with {len(wrong)} wrong or missing values, {wrong[0]} among them")
        return "wrong", []
    refused = [key for key, value in found.items() if value is None]
    return ("in part", refused) if refused else ("whole", [])


def named(what, hit, store, outcome, refused):
    """Whether `doctor` found something; what it found has to be what was hit."""
    ended = store.run("doctor", expect=(0, 1))
    findings = [line for line in ended.out.decode().splitlines() if line.startswith("!!") and "remote:" not in line]
    if outcome != "whole" and not findings:
        fail(f"{what}: it is {outcome}, and `doctor` finds nothing: {ended.out.decode()}")
    words = "\n".join(findings)
    for key in refused:
        # What does not even open has no name that could be told.
        if f"'{key}'" not in words and ": it does not " not in words:
            fail(f"{what}: `get {key}` is refused, and `doctor` does not name it: {words}")
    if findings and hit.name not in words:
        fail(f"{what}: `doctor` does not name {hit.name}: {words}")
    return bool(findings)


def repair(what, store, refused=()):
    """Repairs a store. What was refused is lost to it, and said to be."""
    ended = store.run("doctor", "--repair", expect=0)
    words = ended.out.decode()
    for key in refused:
        if f"\n  {key}\n" not in words:
            fail(f"{what}: the repair does not say that {key} is lost: {words}")
    if "no remote is set" in words and store is device:
        # Nothing that is left says which it was.
        figures["forgotten"] += 1
        store.run("config", "remote", f"127.0.0.1:{way.port}", expect=0)


def kept(what, store):
    """The share of the keys that a repair alone brought back; none may have a value that was never written."""
    keys = store.keys() or []
    found = values(what + ", repaired", store, keys)
    for key, value in found.items():
        if value is None or value not in ever.get(key, ()):
            fail(f"{what}: after the repair {key} has a value that was never written, or none")
    return sum(found.get(key) == value for key, value in must.items()) / len(must)


def equal(what, store, expected):
    found = exported(store.run("export", expect=0).out.splitlines())
    found.pop("after", None)
    if found != expected:
        different = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
        fail(f"{what}: in the end {len(different)} keys are not as they should be, {different[:3]} among them")


def key_place(what, hit, store, begin):
    """A key file that was hit. `begin` says whether the store was served; never is another key made, or all lost."""
    with open(store.directory + "/key", "rb") as file:
        damaged = file.read()
    if begin():
        return "whole"
    named(what, hit, store, "refused", [])
    ended = store.run("doctor", "--repair")
    with open(store.directory + "/key", "rb") as file:
        left = file.read()
    if ended.code == 0:
        if left != hit.before:
            fail(f"{what}: the repair left another key")
        figures["mended"] += 1
    else:
        if ended.code != 3 or b"key file" not in ended.err or left != damaged or not os.path.exists(store.directory + "/store/sled/db"):
            fail(f"{what}: `doctor --repair` ended with {ended.code}, or changed something: {ended.words()}")
        with open(store.directory + "/key", "wb") as file:
            file.write(hit.before)
    return "refused"


def device_place(what, pick, live):
    """Hits a file of a device whose server is whole."""
    copy_store(WORK + "/whole-device", device.directory)
    way.cut()
    if live:
        figures["live"] += 1
        device.run("ls", expect=0)
    hit = Hit(device.directory, pick, chance)
    what = f"{what}: {hit.words}"
    if hit.name == "key file" and not live:
        outcome = key_place(what, hit, device, lambda: device.run("ls").code == 0)
    else:
        outcome, refused = look(what, device, must)
        found = named(what, hit, device, outcome, refused) if outcome != "whole" or chance.random() < 0.2 else False
        if live and hit.name != "key file":
            # What memory hid shows at the next start.
            device.kill_all()
            again, refused = look(what + ", started again", device, must)
            outcome = again if again != "whole" else outcome
            found = found or again != "whole"
        elif live:
            device.kill_all()
            hit.undo()
        if found or outcome != "whole":
            repair(what, device, refused)
            back.append(kept(what, device))
    way.mend()
    device.set("after", b"yes")
    device.run("sync", "--timeout", "60s", expect=0)
    equal(what, device, must_all)
    if outcome != "whole":
        equal(what + ", the server", full, must_all)
        if named(what + ", repaired", hit, device, "whole", []):
            fail(f"{what}: `doctor` still finds something after the repair: {device.run('doctor').out.decode()}")
    device.kill_all()
    return outcome


def served(store):
    """Starts a server that may be damaged; whether it serves."""
    log = open(store.directory + ".log", "wb")
    store.process = store.start("serve", "--bind", "127.0.0.1:0", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    log.close()
    answers = wait_until(lambda: store.process.poll() is not None or store._serves(), 120)
    if store.process.poll() is None:
        if not answers:
            fail("a server that may be damaged does not answer")
        way.target = store.port
        return True
    with open(store.directory + ".log", "rb") as log:
        words = log.read()
    if store.process.returncode != 3 or b": the store in " not in words:
        fail(f"a server ended with {store.process.returncode}: {words[-300:]}")
    return False


def server_place(what, pick, is_blind):
    """Hits a file of a server whose device is whole."""
    copy_store(f"{WORK}/whole-{'blind' if is_blind else 'full'}", server.directory)
    copy_store(WORK + "/whole-device", device.directory)
    expected = must if is_blind else must_all
    hit = Hit(server.directory, pick, chance)
    what = f"{what}: {hit.words}"
    way.cut()
    refused, findings = [], False
    if hit.name == "key file":
        outcome = key_place(what, hit, server, lambda: served(server))
        if outcome == "refused":
            served(server)
    else:
        outcome = "whole" if served(server) else "refused"
        if outcome == "whole" and not is_blind:
            outcome, refused = look(what, server, expected)
        if server.process.poll() is None:
            follow(what)
        findings = named(what, hit, server, outcome, refused)
        if findings:
            outcome = "refused" if outcome == "refused" else "in part"
            server.end(True)
            server.kill_all()
            repair(what, server, refused)
            served(server)
    way.mend()
    if findings and not is_blind:
        # What the server alone had and what was hit of it is gone.
        expected = must | {key: must_all[key] for key in must_all.keys() - must if server.run("get", key).code == 0}
    device.run("sync", "--timeout", "60s", expect=0)
    equal(what + ", the device", device, expected)
    if is_blind:
        fresh = Store(WORK + "/fresh")
        fresh.run("config", "key", data=device_key, expect=0)
        fresh.run("config", "remote", f"127.0.0.1:{way.port}", expect=0)
        fresh.run("sync", "--timeout", "60s", expect=0)
        equal(what + ", a new device", fresh, expected)
        fresh.kill_all()
    else:
        equal(what, server, expected)
    if findings and named(what + ", repaired", hit, server, "whole", []):
        fail(f"{what}: `doctor` still finds something after the repair: {server.run('doctor').out.decode()}")
    server.end(True)
    device.kill_all()
    return outcome


def follow(what):
    """Follows the link to the largest value: all of it, a part of it, or a refusal."""
    figures["links"] += 1
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    whole = must[f"large/{SIZES[-1]}"]
    try:
        connection.request("GET", "/" + link)
        answer = connection.getresponse()
        try:
            body, cut = answer.read(), False
        except http.client.IncompleteRead as error:
            body, cut = error.partial, True
        if answer.status == 200 and (not whole.startswith(body) or (not cut and body != whole)):
            fail(f"{what}: the link gave wrong bytes")
        if answer.status not in (200, 404, 410, 500, 503):
            fail(f"{what}: the link answered {answer.status}")
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()


def one(path):
    """The file at a path."""
    return lambda files: path


def blob(files):
    return chance.choice([path for path in files if is_never_written(path) and path != "ballast"])


def half(files):
    return next(path for path in files if path.endswith(".down"))


def other(files):
    return chance.choice([path for path in files if path in ("ballast", "lock", "kvassd.log") or "/snap." in path])


index, witness = one("store/sled/db"), one("store/witness")
DEVICE, LIVE, FULL, BLIND = (device_place, False), (device_place, True), (server_place, False), (server_place, True)

# What is hit: its name, which file, whether at the end of what is in it, and where it is.
KINDS = [
    ("index", index, False, DEVICE),
    ("index's tail", index, True, DEVICE),
    ("index's settings", one("store/sled/conf"), False, DEVICE),
    ("witness", witness, False, DEVICE),
    ("large value", blob, False, DEVICE),
    ("half a large value", half, False, DEVICE),
    ("key", one("key"), False, DEVICE),
    ("other file", other, False, DEVICE),
    ("large value of a running daemon", blob, False, LIVE),
    ("index of a running daemon", index, True, LIVE),
    ("witness of a running daemon", witness, False, LIVE),
    ("key of a running daemon", one("key"), False, LIVE),
    ("full server's index", index, True, FULL),
    ("full server's witness", witness, False, FULL),
    ("full server's large value", blob, False, FULL),
    ("full server's key", one("key"), False, FULL),
    ("blind server's index", index, True, BLIND),
    ("blind server's witness", witness, False, BLIND),
    ("blind server's large value", blob, False, BLIND),
    ("blind server's key", one("key"), False, BLIND),
]
only = os.environ.get("ONLY")
kinds = [kind for kind in KINDS if not only or only in kind[0]]

must, must_all, ever, link = make()
whole = {name: files_of(f"{WORK}/whole-{name}") for name in ("device", "full", "blind")}
device, server, full = Machine("device"), Server("server"), Server("full")
copy_store(WORK + "/whole-full", full.directory)
full.begin()
device_key = full.key().encode()
began = time.monotonic()
limit = float(os.environ.get("LIMIT", "inf"))
for number in range(places):
    if time.monotonic() - began > limit:
        places = number
        break
    name, choose, at_end, (place, how) = kinds[number % len(kinds)]
    way.target = full.port
    outcome = place(f"place {number} (SEED={seed}), {name}", (choose, at_end), how)
    counts[name] = counts.get(name, 0) + 1
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
    for left in os.listdir(WORK):
        if left in ("device", "server", "fresh", "taken"):
            shutil.rmtree(os.path.join(WORK, left), ignore_errors=True)
    if (number + 1) % 200 == 0:
        pace = 1000 * (time.monotonic() - began) / (number + 1)
        print(f"damage: {number + 1} places, {pace:.0f} ms each: {outcomes}", file=sys.stderr, flush=True)
full.end(False)
if whole != {name: files_of(f"{WORK}/whole-{name}") for name in whole}:
    fail("a place changed the stores that the copies are made of")

each = sorted(set(counts.values()))
finish(
    "damage",
    f"{places} places, {each[0]} to {each[-1]} for each of {len(counts)} kinds of files and stores: "
    f"{outcomes.get('refused', 0)} refused in words, {outcomes.get('in part', 0)} served without values, "
    f"{outcomes.get('whole', 0)} served whole, {outcomes.get('wrong', 0)} served wrong; {figures['mended']} key files mended, "
    f"{figures['links']} links followed, the remote lost with the index {figures['forgotten']} times; of {len(back)} repairs of a device {sum(share == 1 for share in back)} brought all "
    f"back alone, and with the server all of them did",
)
