"""Hashes of large files, kept on this machine for as long as the files stay as they are. [light]"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from forgetguard.cache_folder import cache_folder
from forgetguard.whole_files import write_text

# Smaller ones are hashed faster (0.9 GB/s a core) than their keeping is worth.
SMALL = 16 << 20
# A file that changed less than these seconds ago may change again within one tick of the clock of
# its file system, and look the same: git does not trust such files either ("racy").
SETTLED = 2.0
_HEX = re.compile(r"[0-9a-f]{64}")


def known_hash(files: Sequence[Path], method: str, compute: Callable[[], str]) -> str:
    """The sha256 that `compute` gives of the files, read from the cache folder where it is there.

    Files are the same as long as their real path, device, inode, size and times of change (of the
    content, and of the inode, which no one can set back) are. Several runs at once may all compute
    it; none sees half of what another writes. Without a cache folder it is always computed.

    Args:
        method: what the hash is of; part of its name.
    """
    state = _state(files)
    if sum(one[3] for one in state) < SMALL:
        return compute()
    name = hashlib.sha256(json.dumps([method, state]).encode()).hexdigest()
    settled = time.time() - max(max(one[4:]) for one in state) / 1e9 > SETTLED
    try:
        place = cache_folder() / "hashes" / name
        known = place.read_text(encoding="ascii")
    except (OSError, ValueError, RuntimeError):  # none yet, damaged, no home folder
        known = ""
    if _HEX.fullmatch(known):
        return known
    found = compute()
    if settled and _state(files) == state:
        with contextlib.suppress(OSError, RuntimeError):
            place = cache_folder() / "hashes" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, found)
    return found


def _state(files: Sequence[Path]) -> list[tuple[str, int, int, int, int, int]]:
    """Real path, device, inode, size, times of change in ns; sorted by path."""
    found = []
    for file in files:
        real = file.resolve()
        stat = real.stat()
        times = (stat.st_mtime_ns, stat.st_ctime_ns)
        found.append((str(real), stat.st_dev, stat.st_ino, stat.st_size, *times))
    return sorted(found)
