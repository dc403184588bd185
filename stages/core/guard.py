"""Become another program, one that ends when the process that started it ends.

``guard.py PARENT_PID PROGRAM ARGUMENTS...``; on Linux only, elsewhere it runs unguarded. A program of
its own because a process with threads must not run Python between fork and exec: ``preexec_fn`` can deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(sys.argv[1]):
            sys.exit("the process that started this one is already gone")
    os.execv(sys.argv[2], sys.argv[2:])
