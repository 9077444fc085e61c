#!/usr/bin/env python3
"""Runs a command and prints one line of JSON: CPU seconds (user and system, of it and of all its descendants), peak memory, wall seconds, the machine's load (mean of before
and after, over a minute), exit status.

    measure.py [--log FILE] COMMAND...

Descendants that lose their parent (Spark's Java and its Python workers) come to this process (Linux, prctl(2), PR_SET_CHILD_SUBREAPER), which waits for them, so that
getrusage(RUSAGE_CHILDREN) has counted every one. Peak memory is the greater of two figures: the peak of the largest single process, which the kernel keeps exactly, and the sum over the tree,
looked at ten times a second (pages that processes share count in each).
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import threading
import time

PR_SET_CHILD_SUBREAPER = 36
MEBIBYTE = 1024 * 1024


def tree_bytes(root):
    """Resident bytes of all descendants of `root`."""
    parents, resident = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat, open(f"/proc/{name}/statm") as statm:
                # The command's name stands in parentheses and may hold anything.
                parents[int(name)] = int(stat.read().rpartition(")")[2].split()[1])
                resident[int(name)] = int(statm.read().split()[1]) * resource.getpagesize()
        except (FileNotFoundError, ProcessLookupError):
            continue

    def below(process):
        while process in parents and process != root:
            process = parents[process]
        return process == root

    return sum(size for process, size in resident.items() if process != root and below(process))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--log", default=os.devnull, help="where the command's own output goes")
    arguments.add_argument("command", nargs=argparse.REMAINDER)
    asked = arguments.parse_args()
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    ended, peak = threading.Event(), 0

    def watch():
        nonlocal peak
        while not ended.wait(0.1):
            peak = max(peak, tree_bytes(os.getpid()))

    before, began = os.getloadavg()[0], time.monotonic()
    with open(asked.log, "w") as log:
        command = subprocess.Popen(asked.command, stdout=log, stderr=subprocess.STDOUT)
    watcher = threading.Thread(target=watch)
    watcher.start()
    status = command.wait()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    ended.set()
    watcher.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = max(peak, used.ru_maxrss * 1024)
    figures = {
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_mib": round(peak / MEBIBYTE),
        "wall_s": round(time.monotonic() - began, 1),
        "load": round((before + os.getloadavg()[0]) / 2, 1),
        "status": status,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
