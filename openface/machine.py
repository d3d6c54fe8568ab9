"""This machine's usable cores and GPUs. Needs no library, so that every package may import it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_DRIVERS_GPUS = Path("/proc/driver/nvidia/gpus")
"""NVIDIA's driver on Linux: a folder for each GPU."""
_WINDOWS_GPU = Path("/dev/dxg")
"""The GPU that Windows lends to its Linux subsystem."""
_WHOLE = re.compile(r"GPU (\d+):.*\(UUID: (GPU-[^)]+)\)")
_PART = re.compile(r"MIG .*\(UUID: (MIG-[^)]+)\)")


def usable_cores() -> int:
    """Cores that this process may use: by its affinity, and by the time that its control groups grant it.

    A part of a core counts as none, since a thread that has only a part is stopped in the middle of its work and every
    other thread waits for it. At least 1.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(int(cores) for cores in granted_cores(_OWN_CGROUPS, _CGROUPS))]))


def granted_cores(own: Path, mounted: Path) -> Iterator[float]:
    """Cores' worth of time that the control groups of a process, and those around them, grant; none where all do.

    Args:
        own: the kernel's list of the process's groups, one `number:controllers:path` a line.
        mounted: where the groups lie.
    """
    if not own.is_file():
        return
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        # Version 2 names no controllers and has one tree; version 1 has a tree for each set of controllers.
        if controllers and "cpu" not in controllers.split(","):
            continue
        inner = mounted / controllers / path.lstrip("/")
        for group in (inner, *inner.parents):
            if not group.is_relative_to(mounted):
                break
            yield from _granted_by(group)


def has_gpu() -> bool:
    """Tell whether a driver shows a GPU here. torch, which takes seconds to load, has the last word."""
    return bool(gpus_found())


def gpus_found() -> tuple[str, ...]:
    """The GPUs that a driver shows here, by UUID; of one that is divided (MIG), its parts.

    `all` stands for those whose UUIDs it does not tell.
    """
    return tuple(dict.fromkeys(gpu for gpus in gpus_by_name().values() for gpu in gpus))


def gpus_by_name() -> dict[str, tuple[str, ...]]:
    """The UUIDs of what each name stands for: a GPU's number or UUID, that of a part (MIG), or `0:1`, GPU 0's part 1.

    Without `nvidia-smi`, as in a container, the driver tells whole GPUs, and no parts.
    """
    listing = shutil.which("nvidia-smi")
    if listing:
        said = subprocess.run([listing, "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if said.returncode == 0 and (found := gpus_in(said.stdout)):
            return found
    if _DRIVERS_GPUS.is_dir():
        told = "".join(file.read_text() for file in sorted(_DRIVERS_GPUS.glob("*/information")))
        uuids = re.findall(r"GPU UUID:\s+(GPU-\S+)", told) or ["all"]
    else:
        uuids = ["all"] if _WINDOWS_GPU.exists() else []
    return {name: (uuid,) for number, uuid in enumerate(uuids) for name in (str(number), uuid)}


def gpus_in(listing: str) -> dict[str, tuple[str, ...]]:
    """`gpus_by_name` of what `nvidia-smi -L` prints: a line for each GPU, and an indented one for each part of it."""
    wholes, parts = dict[str, str](), dict[str, list[str]]()
    for line in listing.splitlines():
        if whole := _WHOLE.match(line):
            number = whole[1]
            wholes[number], parts[number] = whole[2], []
        elif part := _PART.search(line):
            parts[number].append(part[1])
    found = dict[str, tuple[str, ...]]()
    for number, uuid in wholes.items():
        # A GPU that is divided can be used by its parts alone.
        usable = tuple(parts[number]) or (uuid,)
        found |= {number: usable, uuid: usable}
        found |= {name: (part,) for i, part in enumerate(parts[number]) for name in (f"{number}:{i}", part)}
    return found


def _granted_by(group: Path) -> Iterator[float]:
    files = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    for names in files:
        if not all((group / name).is_file() for name in names):
            continue
        quota, period = " ".join((group / name).read_text() for name in names).split()
        if quota not in ("max", "-1"):
            yield int(quota) / int(period)
