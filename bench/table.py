"""The table of figures that a benchmark prints, for docs/benchmarks.md."""

import os
import platform
import subprocess
import sys
import time

from programs import KVASS, WORK, finish, problems

rows = []


def say(text):
    print(text, file=sys.stderr, flush=True)


def show(seconds):
    return f"{seconds * 1000:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def row(what, figure, peer, peer_figure, goal, limit=None):
    """A line of the table, of two durations; `limit`: the greatest ratio that reaches the goal."""
    ratio = figure / peer_figure
    met = "" if limit is None else "yes" if ratio <= limit else "**no**"
    rows.append((what, show(figure), peer, show(peer_figure), f"{ratio:.2f}", goal, met))


def rate(what, figure, peer, peer_figure, unit, limit):
    """A line of two rates; `limit`: the least ratio that reaches the goal."""
    ratio = figure / peer_figure
    met = "yes" if ratio >= limit else "**no**"
    rows.append((what, f"{figure:,.0f} {unit}", peer, f"{peer_figure:,.0f} {unit}", f"{ratio:.2f}", f"at least {limit:.2f}", met))


def alone(what, figure, goal, met):
    rows.append((what, figure, "", "", "", goal, "yes" if met else "**no**"))


def beside(what, figure, peer, peer_figure, goal, met):
    """A line of a figure and a peer's; the goal is one for the figure alone."""
    rows.append((what, figure, peer, peer_figure, "", goal, "yes" if met else "**no**"))


def skipped(what, tool):
    say(f"bench: SKIPPED: {what}: {tool} is not installed")
    rows.append((what, "", tool, "not installed", "", "", "skipped"))


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith(("model name", "Model")):
                model = line.split(":", 1)[1].strip()
                break
    system = subprocess.run(["df", "--output=fstype", WORK], stdout=subprocess.PIPE).stdout.decode().split()[-1]
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release().split('-')[0]}, {system}"


def print_table(remark):
    """Prints everything and ends the benchmark."""
    version = subprocess.run([KVASS, "--version"], stdout=subprocess.PIPE).stdout.decode().strip()
    print(f"{version}; {machine()}; {time.strftime('%Y-%m-%d')}; {remark}\n")
    table = [("what", "kvass", "peer", "peer's figure", "ratio", "goal", "met"), *rows]
    widths = [max(len(line[column]) for line in table) for column in range(7)]
    for index, line in enumerate(table):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
        if index == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print()
    missed = [f"{line[0]} against {line[2] or line[5]}" for line in rows if line[6] == "**no**"]
    problems.extend(missed)
    finish("bench", f"{sum(line[6] == 'yes' for line in rows)} goals met" + (f", missed: {'; '.join(missed)}" if missed else ""))
