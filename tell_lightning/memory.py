"""Memory that runs out, and how much of it this process and this machine have. Needs no torch."""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

_SAID = (
    "DefaultCPUAllocator",
    "not enough memory",
    "out of memory",
    "Cannot allocate memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What errors say where memory runs out; on a CPU only their text shows it."""
_STATUS = Path("/proc/self/status")
_CGROUP = Path("/sys/fs/cgroup")
_earlier = [0]  # the peak before the last reset


def is_out_of_memory(error: BaseException | None) -> bool:
    """Say whether an error, or one that it comes from, is that memory ran out.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA error: no kernel"))
    (True, False)
    """
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, RuntimeError | OSError) and any(s in str(error) for s in _SAID):
            return True
        error = error.__cause__ or error.__context__
    return False


def resident_bytes() -> int:
    """Return the memory that this process has now; outside Linux, the most that it has had."""
    return _status("VmRSS") or peak_since_reset()


def peak_resident_bytes() -> int:
    """Return the most memory that this process has had."""
    return max(_earlier[0], peak_since_reset())


def reset_peak(*, remember: bool = True) -> None:
    """Let `peak_since_reset` begin anew, where the system can do that (Linux).

    Args:
        remember: Whether the peak so far counts for `peak_resident_bytes`.
    """
    if remember:
        _earlier[0] = peak_resident_bytes()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_since_reset() -> int:
    """Return the most memory since `reset_peak`; elsewhere than on Linux, since the start."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_bytes() -> int:
    """Return the memory that this process has or may still get: of the machine, or of its group."""
    own, free = resident_bytes(), 0
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = (
            next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
        )
    if not free:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # a container; "max" is no number
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        free = min(free, max(0, limit - used))
    return own + free


def _status(name: str) -> int:
    """Read a size that Linux gives of this process; 0 elsewhere."""
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
