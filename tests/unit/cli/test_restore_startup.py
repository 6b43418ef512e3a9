"""What ``torpor restore`` of a plain directory loads: nothing that knows of containers' engines."""

import subprocess
import sys
from pathlib import Path

_CODE = """
import argparse, sys
from pathlib import Path
from torpor.cli.commands import restore
args = argparse.Namespace(source=sys.argv[1], engine=None, name=None, copies=1)
assert restore._source(args, {}) == Path(args.source)
print(*sorted(name for name in sys.modules if name.startswith("torpor.containers.")))
"""


def test_a_directory_of_processes_is_no_containers_business(tmp_path: Path) -> None:
    (tmp_path / "inventory.img").touch()
    done = subprocess.run([sys.executable, "-c", _CODE, str(tmp_path)], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert loaded <= {"torpor.containers.note", "torpor.containers.model"}, loaded
