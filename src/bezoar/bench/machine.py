"""Where a measurement was made: the machine, the versions and the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("bezoar", "numpy", "pillow", "torch", "transformers")
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a measurement ran on; no name of a host, for that says nothing.

    Attributes:
        cpu: Model of the processor.
        cores: Cores that this process may use.
        features: Instructions that decide which kernels run.
        memory_gib: Main memory in GiB.
        gpu: Model of the accelerator; empty where there is none.
    """

    cpu: str
    cores: int
    features: tuple[str, ...]
    memory_gib: int
    gpu: str = ""

    def __str__(self) -> str:
        parts = [f"{self.cores} cores of {self.cpu}", f"{self.memory_gib} GiB"]
        return ", ".join([*parts, self.gpu] if self.gpu else parts)


def machine() -> Machine:
    """Describe the machine that this process runs on.

    Returns:
        Its processor, memory and accelerator.
    """
    cpu = _cpu_info()
    known = set(cpu.get("flags", cpu.get("Features", "")).split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=cpu.get("model name") or platform.processor() or platform.machine(),
        cores=_cores(),
        features=tuple(f for f in _FEATURES if f in known),
        memory_gib=round(memory / 2**30),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # counts less than the machine in containers
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_info() -> dict[str, str]:
    """Return the first processor's entries; empty where the system lists none."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    rows = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in rows}


def versions() -> dict[str, str]:
    """Return the versions of the packages that a measurement depends on.

    Returns:
        Versions by name; a package that is not installed is left out.
    """
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit of the code that runs.

    Returns:
        Twelve digits, with "+changes" where tracked files other than records differ
        from it; "unknown" where the package is not run from its own checkout.
    """
    here = Path(__file__)
    if _git("ls-files", "--error-unmatch", here.name) is None:
        return "unknown"  # installed, maybe inside the checkout of something else
    head = _git("rev-parse", "--short=12", "HEAD")
    same = _git("diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)docs/records")
    return (head or "unknown") + ("" if same is not None else "+changes")


def _git(*arguments: str) -> str | None:
    """Return what git answers, or None where it refuses or is not installed."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def peak_mib() -> float:
    """Return the most memory that this process held so far, on Linux.

    Returns:
        MiB. Not ``ru_maxrss``: that of a child starts at what its parent held at the
        fork.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (x for x in status.splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
