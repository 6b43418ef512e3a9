"""The demonstration does what it says."""

import subprocess
import sys

import pytest

from harness.events import time_limit_s


@pytest.mark.root
def test_the_demo_shows_both_copies_counting_on() -> None:
    line = [sys.executable, "-m", "torpor.demo"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=time_limit_s(60), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "connection refused" in done.stdout
    assert "Both went on from the same state." in done.stdout
