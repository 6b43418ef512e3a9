"""The generated files are what the schema says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_generated_files_are_current() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools/gen_schema.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
