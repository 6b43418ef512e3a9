"""Images crossed with another CRIU: only where one is named (`make interop PEER=path CRIT=path`)."""

import os
from pathlib import Path


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return True if collection_path.name.startswith("test_") and not os.environ.get("TORPOR_PEER") else None
