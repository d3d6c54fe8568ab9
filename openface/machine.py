"""What this machine lends to a process: cores, and a GPU. Needs no library, so that every package may ask."""

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_SIGNS_OF_A_GPU = (Path("/proc/driver/nvidia/gpus"), Path("/dev/dxg"))
"""NVIDIA's driver on Linux; the GPU that Windows lends to its Linux subsystem."""


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
    return any(sign.exists() for sign in _SIGNS_OF_A_GPU)


def _granted_by(group: Path) -> Iterator[float]:
    files = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    for names in files:
        if not all((group / name).is_file() for name in names):
            continue
        quota, period = " ".join((group / name).read_text() for name in names).split()
        if quota not in ("max", "-1"):
            yield int(quota) / int(period)
