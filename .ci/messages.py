"""Every message that docs/operations.md explains is still one of the programs', but for what stands in its place."""

import glob
import re
import sys

code = ""
for crate in ("kvassd", "kvass-cli"):
    for path in glob.glob(f"{crate}/src/**/*.rs", recursive=True):
        with open(path) as file:
            code += file.read()
with open("docs/operations.md") as file:
    page = file.read()
rows = re.findall(r"^\| (`.*?`) \|", page[page.index("## What to watch") :], re.M)
messages = [message for row in rows for message in re.findall(r"`([^`]*)`", row)]
# What is filled in: `…`, numbers, the pid; and the level of a log line.
parts = [part.strip(" ()") for message in messages for part in re.split(r"…|\d+ s|\(pid|WARN|ERROR|INFO", message)]
parts = [part for part in parts if len(part) > 3]
missing = [part for part in parts if part not in code]
for part in missing:
    print(f"docs/operations.md explains «{part}», which no program says")
print(f"{len(messages)} messages")
sys.exit(1 if missing or len(messages) < 30 else 0)
