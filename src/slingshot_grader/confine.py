"""What a process gives up before it runs a learner's code: limits and, on Linux, system calls.

The limits of ``resource`` bound what a single process uses. A filter of system calls (seccomp) adds
what they cannot: no anonymous memory that belongs to no process, no look into another process and,
where there is no sandbox with its own process numbers, no signal to one. A filter can be neither
taken back nor left: every child has it too. Standard library only.
"""

import contextlib
import ctypes
import errno
import importlib.util
import os
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

LARGEST_FILE = 64_000_000
MOST_FILES_OPEN = 256

# Numbers of system calls: x86_64 first, aarch64 second.
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
NEVER = {
    "memfd_create": (319, 279),  # memory that no process is charged for
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),  # does what this filter forbids, unseen by it
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "unshare": (272, 97),
    "setns": (308, 268),
}
SIGNALS = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
}
TKILL = (200, 130)
PRLIMIT = (302, 261)
# A file can be told to send signals to somebody: F_SETOWN, F_SETOWN_EX, FIOSETOWN, SIOCSPGRP.
OWNER = {"fcntl": ((72, 25), (8, 15)), "ioctl": ((16, 29), (0x8901, 0x8902))}

# Memory that is shared and has no file stays when a process tells the kernel that it needs it no
# more, and then counts for none. (A file in memory is bounded by its file system.)
MMAP = (9, 222)
KIND, SHARED, NAMELESS = 0x0F, (0x01, 0x03), 0x20

LOAD, EQUAL, AT_LEAST, RETURN, AND = 0x20, 0x15, 0x35, 0x06, 0x54
# Where struct seccomp_data holds the number of a call, and its arguments.
NUMBER, ARCHITECTURE, FIRST, SECOND, FOURTH = 0, 4, 16, 24, 40
ALLOW, REFUSE = 0x7FFF0000, 0x00050000

Instruction = tuple[int, int, int, int]


def confine(memory: int, seconds: int, *, signals: bool) -> bool:
    """Limit this process and all that it will start; return whether system calls are filtered.

    ``memory`` is in bytes, ``seconds`` are of computing. With ``signals`` it may send signals to
    others, as within a sandbox, where the others are its own.
    """
    limit_resources(memory, seconds)
    return filter_calls(None if signals else os.getpid())


def limit_resources(memory: int, seconds: int) -> None:
    """Bound memory, processor time and files of this process, and of each that it starts."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {
        "RLIMIT_DATA": memory,
        "RLIMIT_AS": memory + libraries(),
        "RLIMIT_CPU": seconds,
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": LARGEST_FILE,
        "RLIMIT_NOFILE": MOST_FILES_OPEN,
        "RLIMIT_NPROC": 256,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_MEMLOCK": 0,
    }
    for name, value in limits.items():
        with contextlib.suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (value, value))


def libraries() -> int:
    """Bytes of torch's shared libraries as files: importing it maps no more than these.

    To map a library takes addresses and hardly any memory. A build of torch with CUDA has
    gigabytes of them, which would leave nothing of a limit on addresses.
    """
    try:
        found = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return 0
    if found is None or not found.origin:
        return 0
    package = Path(found.origin).parent
    patterns = (package, "lib/*.so*"), (package.parent, "nvidia*/**/*.so*")
    files = {path.resolve() for folder, pattern in patterns for path in folder.glob(pattern)}
    return sum(path.stat().st_size for path in files if path.is_file())


def filter_calls(only: int | None) -> bool:
    """Install the filter; with ``only``, signals may go to that process alone.

    Return False where there is no such filter, as on macOS and Windows.
    """
    if sys.platform != "linux" or platform.machine() not in ARCHITECTURES:
        return False
    column, architecture = ARCHITECTURES[platform.machine()]
    program = b"".join(
        struct.pack("=HBBI", code, yes, no, value)
        for code, yes, no, value in instructions(column, architecture, only)
    )
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    pointer = ctypes.c_char_p(header)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(set_seccomp, filter_mode, pointer, 0, 0) == 0)


def instructions(column: int, architecture: int, only: int | None) -> Iterator[Instruction]:
    """The filter, in the classic language of packet filters: code, jumps if true, false, value."""
    absent = (RETURN, 0, 0, REFUSE | errno.ENOSYS)
    denied = (RETURN, 0, 0, REFUSE | errno.EPERM)
    allowed = (RETURN, 0, 0, ALLOW)
    yield (LOAD, 0, 0, ARCHITECTURE)
    yield (EQUAL, 1, 0, architecture)
    yield absent
    yield (LOAD, 0, 0, NUMBER)
    if column == 0:  # the third set of numbers of x86, which would go round the list
        yield (AT_LEAST, 0, 1, 0x40000000)
        yield absent
    for numbers in NEVER.values():
        yield (EQUAL, 0, 1, numbers[column])
        yield absent
    yield (EQUAL, 0, 3 + 2 * len(SHARED), MMAP[column])
    yield (LOAD, 0, 0, FOURTH)
    yield (AND, 0, 0, KIND | NAMELESS)
    for kind in SHARED:
        yield (EQUAL, 0, 1, kind | NAMELESS)
        yield denied
    yield allowed
    if only is not None:
        yield from signals_to_one(column, only, allowed, denied)
    yield allowed


def signals_to_one(
    column: int, only: int, allowed: Instruction, denied: Instruction
) -> Iterator[Instruction]:
    """Allow signals to one process, and refuse them to all others, by whatever way."""
    for numbers in SIGNALS.values():
        yield (EQUAL, 0, 4, numbers[column])
        yield (LOAD, 0, 0, FIRST)
        yield (EQUAL, 0, 1, only)
        yield allowed
        yield denied
    yield (EQUAL, 0, 1, TKILL[column])
    yield denied
    yield (EQUAL, 0, 4, PRLIMIT[column])
    yield (LOAD, 0, 0, FIRST)
    yield (EQUAL, 0, 1, 0)
    yield allowed
    yield denied
    for numbers, commands in OWNER.values():
        yield (EQUAL, 0, 2 + 2 * len(commands), numbers[column])
        yield (LOAD, 0, 0, SECOND)
        for command in commands:
            yield (EQUAL, 0, 1, command)
            yield denied
        yield allowed
