"""Every test that docs/security.md and docs/reliability.md name is there, in the file that they name before it."""

import glob
import os
import re
import sys

PAGES = ("docs/security.md", "docs/reliability.md")
TEST = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)+")

SOURCES = ("kvassd/**/*.rs", "kvass-cli/**/*.rs", "proof/*.py")
# Names of the system that look like those of tests.
NO_TESTS = {"sync_file_range"}

problems, claims, tests = [], 0, set()


def read(path):
    with open(path) as file:
        return file.read()


def check(page, row):
    """One row: files, and behind each the tests in it."""
    file = None
    for name in re.findall(r"`([^`]+)`", row):
        if re.fullmatch(r"[\w./-]+\.(?:rs|sh|py)|\.ci/run", name):
            file = name
            if not os.path.isfile(name):
                problems.append(f"{page} names {name}, which is not there")
                file = None
            elif not name.endswith(".rs"):
                tests.add(name)
        elif file and TEST.fullmatch(name):
            tests.add(name)
            if not re.search(rf"\b(?:fn|def) {name}\(", read(file)):
                problems.append(f"{page} names {name}, which is not in {file}")
            elif file.endswith(".py") and len(re.findall(rf"\b{name}\(", read(file))) < 2:
                problems.append(f"{page} names {name}, which {file} does not run")


def check_bullets(page, text):
    """The tests that a fault was found with are named in bullets, without their files."""
    sources = [path for pattern in SOURCES for path in glob.glob(pattern, recursive=True)]
    defined = {name for path in sources for name in re.findall(r"\b(?:fn|def) (\w+)\(", read(path))}
    for bullet in re.findall(r"^- .*(?:\n  .*)*", text, re.M):
        for name in re.findall(r"`([^`]+)`", bullet):
            if TEST.fullmatch(name) and name.count("_") > 1 and name not in NO_TESTS:
                tests.add(name)
                if name not in defined:
                    problems.append(f"{page} names {name}, which is nowhere")


for page in PAGES:
    text = read(page)
    if page == PAGES[1]:
        check_bullets(page, text)
    for row in re.findall(r"^\|.*\|$", text, re.M):
        check(page, row)
    for attacker in re.split(r"^###? ", text, flags=re.M)[1:] if page == PAGES[0] else []:
        rows = attacker.partition("| shown by | |")[2].count("\n| ") - 1
        claims += max(rows, 0)
        if "annot" in attacker.partition("|")[0] and rows < 1 and "Nothing here protects" not in attacker:
            problems.append(f"{PAGES[0]}: «{attacker.splitlines()[0]}» says what cannot be done, and not what shows it")

# Tests that are never run would be found nowhere else.
for path in (path for pattern in SOURCES[:2] for path in glob.glob(pattern, recursive=True)):
    if "#[ignore" in read(path):
        problems.append(f"{path} has a test that is left out")
for problem in problems:
    print(problem)
print(f"{claims} claims, shown by {len(tests)} tests and proofs")
sys.exit(1 if problems or claims < 50 else 0)
