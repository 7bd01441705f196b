"""How a process of many threads uses memory."""

import ctypes

_M_ARENA_MAX = -8  # glibc's malloc.h


def share_one_heap() -> bool:
    """Let all threads of this process allocate from one heap; False where the C library knows nothing of it (musl).

    glibc gives each thread a heap of its own, up to eight for each core, and each keeps what its largest task ever
    needed. The threads of a Python process take turns anyway, so that the others' freed memory serves them as well.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1
