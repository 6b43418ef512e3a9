import os
from pathlib import Path

from torpor.base.ids import Pid
from torpor.objects.files import watched


def test_candidates_are_searched_below_another_root(tmp_path: Path) -> None:
    (tmp_path / "one" / ".two").mkdir(parents=True)
    (tmp_path / "one" / ".two" / "file").touch()
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        found = set(watched.iter_candidates(Pid(os.getpid()), ["/"], root))
    finally:
        os.close(root)
    assert {"/one", "/one/.two", "/one/.two/file"} <= found
