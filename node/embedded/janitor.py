"""The one who cleans up when we no longer can: a tiny process that outlives us and removes what we left.

It is told on its standard input what exists (`group PGID`, `tree PATH`, and the same with a leading `-` once it is
gone). When that pipe ends, by whatever death of the owner, kill -9 included, it kills the groups and removes the trees.
This file is run by path with `python -I -S`, so it imports the standard library only.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time


def main() -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    groups: dict[int, None] = {}
    trees: dict[str, None] = {}
    for line in sys.stdin:
        word, _, value = line.rstrip("\n").partition(" ")
        match word:
            case "group":
                groups[int(value)] = None
            case "-group":
                groups.pop(int(value), None)
            case "tree":
                trees[value] = None
            case "-tree":
                trees.pop(value, None)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    for tree in trees:
        # PostgreSQL's children notice the postmaster's death a moment later and may still write until then.
        for _ in range(50):
            shutil.rmtree(tree, ignore_errors=True)
            if not os.path.exists(tree):
                break
            time.sleep(0.1)


if __name__ == "__main__":
    main()
