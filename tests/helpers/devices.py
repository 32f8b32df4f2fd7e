"""Devices of one's own: what replaced /dev/null by a file would harm the whole machine, where it may."""

import os
import stat
from pathlib import Path

MINOR = {"null": 3, "zero": 5, "full": 7}


def device(folder: Path, name: str) -> Path:
    """A character device as /dev has it; where none may be made, /dev itself cannot be harmed."""
    path = folder / f"dev-{name}"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, MINOR[name]))
        path.open("r+b").close()  # a file system may be mounted without devices
    except OSError:
        path.unlink(missing_ok=True)
        return Path("/dev") / name
    return path
