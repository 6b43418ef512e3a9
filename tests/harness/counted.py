"""`criu` with its work counted: calls, bytes read, stops waited for. `python -m harness.counted FILE dump ...`"""

import gc
import json
import os
import sys
from pathlib import Path
from types import FrameType

_counts = {"calls": 0, "bytes": 0, "stops": 0}


def _count(frame: FrameType, event: str, argument: object) -> None:
    if event in ("call", "c_call"):
        _counts["calls"] += 1
        if argument is os.waitpid:
            _counts["stops"] += 1


def _read() -> int:
    return int(Path("/proc/self/io").read_text(encoding="ascii").split()[1])


def main() -> int:
    from torpor.cli.criu.main import main as criu

    gc.disable()
    pid, before = os.getpid(), _read()
    sys.setprofile(_count)
    code = criu(sys.argv[2:])
    sys.setprofile(None)
    if os.getpid() == pid:
        _counts["bytes"] = _read() - before
        Path(sys.argv[1]).write_text(json.dumps(_counts), encoding="ascii")
    return code


if __name__ == "__main__":
    os._exit(main())
