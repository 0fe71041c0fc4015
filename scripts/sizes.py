"""Print what the demo needs: how much is downloaded and how much disk it takes.

Run by scripts/setup with .venv's Python.  Download sizes are the ones pip named when it
fetched the packages; an environment made by other means shows none.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
EXTRAS = ("embedded", "datasets", "cloud")  # as in scripts/setup


def closure(root: str, *extras: str) -> dict[str, metadata.Distribution]:
    """Return every installed distribution that ``root[extras]`` needs, itself included."""
    found: dict[str, metadata.Distribution] = {}
    todo = [(root, (*extras, ""))]
    while todo:
        name, wanted_extras = todo.pop()
        dist = metadata.distribution(name)
        found[canonicalize_name(name)] = dist
        for line in dist.requires or []:
            need = Requirement(line)
            wanted = any(
                need.marker is None or need.marker.evaluate({"extra": e}) for e in wanted_extras
            )
            if wanted and canonicalize_name(need.name) not in found:
                todo.append((need.name, (*need.extras, "")))
    return found


def installed_bytes(dist: metadata.Distribution) -> int:
    """Return the size of the files that pip unpacked for one distribution."""
    paths = (Path(str(file.locate())) for file in dist.files or [])
    return sum(path.stat().st_size for path in paths if path.is_file())


def downloaded_bytes(names: set[str]) -> float:
    """Return the size of the wheels of these packages, 0 when pip left no note."""
    note = Path(sys.prefix, ".downloads")
    if not note.exists():
        return 0
    sizes: dict[str, float] = {}
    for line in note.read_text().splitlines():
        wheel, size, unit = line.split()
        name = canonicalize_name(wheel.split("-")[0])
        if name in names:
            sizes[name] = float(size) * UNITS[unit]
    return sum(sizes.values())


def model_rows() -> list[tuple[str, int, int]]:
    """Return name, download and size on disk of each model of the catalogue."""
    from pgstack.embedded.modelserver import catalogue

    return [
        (model.name.removesuffix(":latest"), model.download_bytes, model.installed_bytes)
        for model in catalogue.load()
    ]


def row(what: str, download: float, disk: float) -> str:
    """Return one line of the table, sizes in MB; unknown ones as a dash."""
    sizes = (f"{size / 1e6:.0f} MB" if size else "-" for size in (download, disk))
    return "  {:<34} {:>10} {:>10}".format(what, *sizes)


def main() -> int:
    """Print the table."""
    dists = closure("pgstack", *EXTRAS)
    dists.pop("pgstack")
    disk = {name: installed_bytes(dist) for name, dist in dists.items()}
    largest = sorted(disk, key=lambda name: -disk[name])[:4]
    print(f"What pgstack needs   {'':<16} {'download':>10} {'on disk':>10}")
    total_download, total_disk = downloaded_bytes(set(disk)), float(sum(disk.values()))
    print(row(f"Python packages ({len(disk)})", total_download, total_disk))
    for name in largest:
        print(row(f"  of these {name}", downloaded_bytes({name}), disk[name]))
    for name, download, size in model_rows():
        print(row(f"model {name}", download, size))
        total_download += download if total_download else 0  # a part is no total
        total_disk += size
    print(row("all together", total_download, total_disk))
    return 0


if __name__ == "__main__":
    sys.exit(main())
