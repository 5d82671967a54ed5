"""A job process does not outlive its supervisor, not even one that was killed with -9."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def bind_to(parent: int) -> bool:
    """Have the kernel send SIGKILL to this process when `parent` dies; Linux only.

    Elsewhere nothing is bound: the lease runs out, and whatever the process still writes is
    refused by its token.

    Args:
        parent: process id of whoever started this process.

    Returns:
        False if `parent` died before it could be bound to: the caller has to go, too.
    """
    if sys.platform != "linux":
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The signal is sent on a death after the call; one before it shows in the parent's id.
    return os.getppid() == parent
