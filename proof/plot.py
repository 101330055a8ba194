"""Draws samples of `measure.py` as SVG: a file for each quantity, a line for each machine.

Usage: plot.py SAMPLES.tsv DIR
"""

import math
import sys

MIB = 1 << 20

# Title, unit, how many bytes or pieces it is, and the columns that are added up.
QUANTITIES = {
    "memory": ("Memory of each process that no file stands behind", "MiB", MIB, ("memory",)),
    "descriptors": ("Open descriptors of each process", "descriptors", 1, ("descriptors",)),
    "threads": ("Threads of each process", "threads", 1, ("threads",)),
    "disk": ("Space of each store on the disk", "MiB", MIB, ("disk", "values")),
}
# Told apart by those who do not see red and green too, on white and on black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#808080")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 840, 380, 64, 16, 58, 48
POINTS = 300


def read(path):
    """The rows of a file of samples."""
    with open(path, encoding="ascii") as file:
        names, *lines = (line.rstrip("\n").split("\t") for line in file)
    return [
        {name: text if name == "machine" else float(text) for name, text in zip(names, line)} for line in lines
    ]


def grouped(rows, *names):
    """Rows by the values of some columns."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def step(greatest):
    """A round distance between lines of the grid, of which about five are drawn."""
    raw = max(greatest, 1) / 5
    power = 10 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)


def pieces(rows, columns, by):
    """Points (minutes, value) of one machine, broken where no process ran or another one began."""
    found, last = [[]], None
    for row in rows:
        if row["process"] != last or not row["process"]:
            found.append([])
            last = row["process"]
        if row["process"]:
            found[-1].append((row["seconds"] / 60, sum(row[column] for column in columns) / by))
    return [piece for piece in found if piece]


def whole(rows, columns, by):
    return [[(row["seconds"] / 60, sum(row[column] for column in columns) / by) for row in rows]]


def thinned(line):
    """The pieces of one line, thinned by what they have together."""
    size = max(1, math.ceil(sum(map(len, line)) / POINTS))
    return [thin(piece, size) for piece in line]


def thin(points, size):
    """The greatest of each few neighbours, so that peaks stay."""
    parts = (points[at : at + size] for at in range(0, len(points), size))
    return [max(part, key=lambda point: point[1]) for part in parts]


def draw(rows, quantity):
    """The SVG of one quantity."""
    title, unit, by, columns = QUANTITIES[quantity]
    cut = whole if quantity == "disk" else pieces
    lines = {name: cut(of_it, columns, by) for (name,), of_it in grouped(rows, "machine").items()}
    points = [point for line in lines.values() for piece in line for point in piece]
    end, top = max(point[0] for point in points), max(point[1] for point in points)
    rise, run = step(top), step(end)
    top = math.ceil(top / rise) * rise

    def at(minutes, value):
        across = LEFT + minutes / end * (WIDTH - LEFT - RIGHT)
        return f"{across:.1f}", f"{HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM):.1f}"

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        # Grey words and lines are seen on a light and on a dark page.
        "<style>text{fill:#808080}.grid{stroke:#808080;stroke-opacity:.3}.line{fill:none;stroke-width:1.4}</style>",
        f"<title>{title}</title>",
        f'<text x="{LEFT}" y="20" font-size="15">{title}</text>',
    ]
    for number in range(round(top / rise) + 1):
        x, y = at(0, number * rise)
        out.append(f'<path class="grid" d="M{x} {y}H{WIDTH - RIGHT}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{number * rise:g}</text>')
    for number in range(math.floor(end / run) + 1):
        x, y = at(number * run, 0)
        out.append(f'<text x="{x}" y="{float(y) + 18:.1f}" text-anchor="middle">{number * run:g}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">minutes</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{unit}</text>')
    for number, (name, line) in enumerate(lines.items()):
        colour, x = COLOURS[number % len(COLOURS)], LEFT + number * 110
        out.append(f'<path d="M{x} 40h16" stroke="{colour}" stroke-width="3"/><text x="{x + 21}" y="44">{name}</text>')
        # Pieces of one point show as a dot.
        way = "".join(
            "M" + "L".join(" ".join(at(*point)) for point in piece) + ("h.1" if len(piece) == 1 else "")
            for piece in thinned(line)
        )
        out.append(f'<path class="line" stroke="{colour}" stroke-linecap="round" d="{way}"/>')
    return "\n".join([*out, "</svg>", ""])


def draw_all(rows, directory):
    for quantity in QUANTITIES:
        with open(f"{directory}/{quantity}.svg", "w", encoding="ascii") as file:
            file.write(draw(rows, quantity))


if __name__ == "__main__":
    draw_all(read(sys.argv[1]), sys.argv[2])
