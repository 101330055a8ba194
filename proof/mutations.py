"""Puts wrong lines into a copy of the source, and sees that the simulation notices each of them.

All of them are compiled at once, each behind a switch: `KVASS_MUTATION=N` puts the Nth in force, none without. So each
is an expression, and so is what replaces it.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent

# How long one mutation may take before it counts as hanging, in seconds.
PATIENCE = 1_800

# Worlds that are lived before the boundaries of a session.
FEW = 30

SWITCH = '''//! Which wrong line is in force.
use std::sync::LazyLock;
static CHOSEN: LazyLock<usize> =
    LazyLock::new(|| std::env::var("KVASS_MUTATION").map_or(0, |number| number.parse().unwrap_or(0)));
pub(crate) fn is(number: usize) -> bool {
    *CHOSEN == number
}
'''


class Stale(Exception):
    """A mutation does not apply any more."""


def mutations():
    with open(HERE / "mutations.toml", "rb") as file:
        return tomllib.load(file)["mutation"]


def find(text, part, what):
    """The only place where a text has a part."""
    if text.count(part) != 1:
        raise Stale(f"{what}: found {text.count(part)} times: {part}")
    return text.index(part)


def place(text, number, mutation):
    """From where to where a mutation goes."""
    what = f"{number}, {mutation['name']}, {mutation['file']}"
    within = mutation.get("within", text)
    begin = find(text, within, what)
    begin += find(within, mutation["from"], what)
    return begin, begin + len(mutation["from"])


def mutate(text, chosen):
    """A file's text with a switch for each of the mutations."""
    places = {}
    for number, mutation in chosen:
        places.setdefault(place(text, number, mutation), []).append((number, mutation["to"]))
    after = len(text)
    for begin, end in sorted(places, reverse=True):
        if end > after:
            raise Stale(f"two mutations overlap: {text[begin:end]}")
        switched = text[begin:end]
        for number, to in places[begin, end]:
            switched = f"(if crate::mutation::is({number}) {{ {to} }} else {{ {switched} }})"
        text, after = text[:begin] + switched + text[end:], begin
    return text


def mutated(all_of_them):
    """The mutated files: their texts by their paths."""
    files = {}
    for number, mutation in enumerate(all_of_them, 1):
        files.setdefault(mutation["file"], []).append((number, mutation))
    return {file: mutate((SOURCE / file).read_text(), chosen) for file, chosen in files.items()}


def write(path, content):
    """Writes a file, unless that is what it has: what did not change is not built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_bytes() != content:
        path.write_bytes(content)


def copy(to, texts):
    """Copies the tree, and mutates it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=SOURCE, check=True, capture_output=True
    )
    library = "kvassd/src/lib.rs"
    texts = texts | {library: texts.get(library, (SOURCE / library).read_text()) + "\nmod mutation;\n"}
    texts["kvassd/src/mutation.rs"] = SWITCH
    for name in filter(None, listed.stdout.decode().split("\0")):
        if name not in texts and (SOURCE / name).is_file():
            write(to / name, (SOURCE / name).read_bytes())
    for name, text in texts.items():
        write(to / name, text.encode())


def build(tree, target):
    """Builds the simulation, and returns its program."""
    command = ["cargo", "test", "--locked", "-p", "kvassd", "--test", "simulation", "--no-run", "--message-format=json"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(target)}
    built = subprocess.run(command, cwd=tree, env=environment, capture_output=True)
    if built.returncode != 0:
        sys.stderr.write(built.stderr.decode(errors="replace"))
        raise SystemExit("mutations: FAILED: the copy does not build")
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "simulation":
            return message["executable"]
    raise SystemExit("mutations: no program was built")


def lives(program, number, test, first, seeds):
    """Lives worlds with a mutation in force. `None` where all were well, else what was wrong."""
    environment = os.environ | {
        "KVASS_MUTATION": str(number),
        "KVASS_FIRST_SEED": str(first),
        "KVASS_SEEDS": str(seeds),
        "KVASS_STOP": "1",
    }
    try:
        run = subprocess.run([program, test, "--exact"], env=environment, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return "it hangs"
    if run.returncode == 0:
        return None
    said = (run.stdout + run.stderr).decode(errors="replace")
    first = sorted((int(seed) for seed in re.findall(r"KVASS_(?:SEED|BOUNDARY)=(\d+)", said)))
    kind = "seed" if test == "worlds_converge" else "boundary"
    return f"{kind} {first[0]}" if first else f"the process ended with {run.returncode}"


def look(program, number, seeds):
    """What notices a mutation; `None`: nothing does."""
    few = min(seeds, FEW)
    for test, first, count in [
        ("worlds_converge", 0, few),
        ("a_session_may_be_cut_behind_each_of_its_frames", 0, seeds),
        ("worlds_converge", few, seeds - few),
    ]:
        noticed = lives(program, number, test, first, count)
        if noticed:
            return noticed
    return None


def main(arguments):
    all_of_them = mutations()
    texts = mutated(all_of_them)
    if arguments == ["check"]:
        print(f"mutations: ok: {len(all_of_them)} mutations apply")
        return 0
    work, seeds = pathlib.Path(os.environ["KVASS_WORK"]).resolve(), int(os.environ.get("KVASS_SEEDS", "300"))
    copy(work / "tree", texts)
    program = build(work / "tree", work / "target")
    chosen = [int(number) for number in arguments] or range(1, len(all_of_them) + 1)
    begun = time.monotonic()
    unmutated = look(program, 0, seeds)
    if unmutated:
        print(f"mutations: FAILED: without any, {unmutated}")
        return 1
    print(f"none: well, {time.monotonic() - begun:.0f} s", flush=True)
    survivors = 0
    for number in chosen:
        began, mutation = time.monotonic(), all_of_them[number - 1]
        noticed = look(program, number, seeds)
        survivors += noticed is None
        print(f"{number}. {mutation['name']}: {noticed or 'SURVIVED'}, {time.monotonic() - began:.0f} s", flush=True)
    verdict = f"{survivors} SURVIVED" if survivors else "ok"
    print(f"mutations: {verdict}: {len(chosen)} mutations, at most {seeds} worlds each, {time.monotonic() - begun:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Stale as stale:
        print(f"mutations: FAILED: {stale}", file=sys.stderr)
        sys.exit(1)
