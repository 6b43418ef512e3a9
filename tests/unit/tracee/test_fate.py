"""Who is let go stopped is seen to be stopped."""

import signal
import subprocess
import threading
import time

from torpor.base.ids import Pid
from torpor.kernel.procfs.stat import read_stat
from torpor.tracee import fate


def test_it_is_waited_for_until_all_are_stopped() -> None:
    with subprocess.Popen(["sleep", "1000"]) as one, subprocess.Popen(["sleep", "1000"]) as other:
        one.send_signal(signal.SIGSTOP)
        threading.Timer(0.05, other.send_signal, (signal.SIGSTOP,)).start()
        fate.await_stopped([Pid(one.pid), Pid(other.pid)])
        assert [read_stat(Pid(each.pid)).state for each in (one, other)] == ["T", "T"]
        one.kill()
        other.kill()


def test_one_that_has_gone_hides_no_other() -> None:
    with subprocess.Popen(["true"]) as gone, subprocess.Popen(["sleep", "1000"]) as other:
        gone.wait()
        threading.Timer(0.05, other.send_signal, (signal.SIGSTOP,)).start()
        fate.await_stopped([Pid(gone.pid), Pid(other.pid)])
        assert read_stat(Pid(other.pid)).state == "T"
        other.kill()


def test_not_for_long_where_somebody_has_them_go_on() -> None:
    with subprocess.Popen(["sleep", "1000"]) as runs:
        began = time.monotonic()
        fate.await_stopped([Pid(runs.pid)])
        assert time.monotonic() - began >= 1.0
        runs.kill()
    fate.await_stopped([Pid(runs.pid)])
