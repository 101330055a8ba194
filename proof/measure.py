"""What processes and their stores take, over time, and whether it stays flat."""

import os
import statistics
import threading
import time

from plot import MIB, grouped
from programs import disk_bytes, memory

# Of a process, and of a store: what may be added to a median before it counts as growth, beside a tenth.
PROCESS = {"memory": 8 * MIB, "descriptors": 8, "threads": 16}
STORE = {"disk": 32 * MIB, "values": 32 * MIB, "files": 8}
COLUMNS = ("seconds", "machine", "process", "resident", *PROCESS, *STORE)


def descriptors(process):
    """How many descriptors a process has open; 0 where it is gone."""
    try:
        return len(os.listdir(f"/proc/{process}/fd"))
    except OSError:
        return 0


def files(directory):
    return sum(len(names) for _, _, names in os.walk(directory))


def sample(machine, seconds):
    """One row. `disk` is all but the files of large values, which are `values`; `memory` is what no file stands behind."""
    process, values = machine.daemon() or 0, disk_bytes(machine.directory + "/blobs")
    return {
        "seconds": round(seconds, 1),
        "machine": machine.name,
        "process": process,
        "resident": memory(process, "VmRSS") * 1024,
        "memory": memory(process, "RssAnon") * 1024,
        "descriptors": descriptors(process),
        "threads": memory(process, "Threads"),
        "disk": disk_bytes(machine.directory) - values,
        "values": values,
        "files": files(machine.directory),
    }


class Sampler(threading.Thread):
    """Takes a row of each machine every few seconds, until told to stop, and writes them to a file of tab-separated values."""

    def __init__(self, machines, period, path):
        super().__init__(daemon=True)
        self.machines, self.period, self.path = machines, period, path
        self.rows, self.ending, self.began = [], threading.Event(), time.monotonic()

    def run(self):
        with open(self.path, "w", encoding="ascii") as out:
            print(*COLUMNS, sep="\t", file=out)
            while not self.ending.wait(self.period):
                for machine in self.machines:
                    row = sample(machine, time.monotonic() - self.began)
                    print(*row.values(), sep="\t", file=out, flush=True)
                    self.rows.append(row)

    def stop(self):
        self.ending.set()
        self.join()


def quarters(rows, field):
    """The medians of the second and of the last quarter: the first is for warming up."""
    first, last = rows[0]["seconds"], rows[-1]["seconds"]
    found = [[], [], [], []]
    for row in rows:
        found[min(3, int(4 * (row["seconds"] - first) / max(last - first, 1)))].append(row[field])
    return statistics.median(found[1] or [0]), statistics.median(found[3] or [0])


def long_lives(rows, least):
    """The rows of each process that lived for as many seconds."""
    lives = grouped((row for row in rows if row["process"]), "machine", "process")
    return {who: life for who, life in lives.items() if life[-1]["seconds"] - life[0]["seconds"] >= least}


def growths(rows, least):
    """What grew: texts. Processes are judged where one lived for `least` seconds, stores always."""
    judged = [(f"{name}, process {process:.0f}", life, PROCESS) for (name, process), life in long_lives(rows, least).items()]
    judged += [(name, of_store, STORE) for (name,), of_store in grouped(rows, "machine").items()]
    texts = []
    for who, of_it, fields in judged:
        for field, slack in fields.items():
            before, after = quarters(of_it, field)
            if after > before * 1.1 + slack:
                unit, by = (" MiB", MIB) if slack >= MIB else ("", 1)
                texts.append(f"{who}: {field} grew from {before / by:.0f} to {after / by:.0f}{unit}")
    return texts
