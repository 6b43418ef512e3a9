"""A service whose standard output leads to systemd's journal: connected again, with the lines that it began with.

So are datagrams to it, to syslog and to the service manager, which never answer.  All of these are ours, in a mount
namespace with another /run.
"""

import subprocess
import sys

import pytest

from harness import engine
from harness.events import time_limit_s

pytestmark = pytest.mark.root

_HEADER = ["sleeper", "sleeper.service", "28", "1", "0", "1", "0"]
_KEYS = ("IDENTIFIER", "UNIT", "PRIORITY", "LEVEL_PREFIX", "FORWARD_TO_SYSLOG", "FORWARD_TO_KMSG", "FORWARD_TO_CONSOLE")

_ENGINE = """
def criu(*words):
    line = [*sys.argv[2:], *words, "-D", "/run/images", "-o", "log"]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert done.returncode == 0, open("/run/images/log").read()
"""
#: Arguments: the state file's lines, the engine's words.  Prints what the journal has got of the restored service.
_SCENE = f"""
import os, signal, socket, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "run", "/run"], check=True)
os.makedirs("/run/systemd/journal/streams"); os.mkdir("/run/images")
journal = socket.socket(socket.AF_UNIX); journal.bind("/run/systemd/journal/stdout"); journal.listen(5)
client = socket.socket(socket.AF_UNIX); client.connect("/run/systemd/journal/stdout")
accepted, _ = journal.accept(); client.shutdown(socket.SHUT_RD)
info = os.fstat(accepted.fileno())
if sys.argv[1]:
    with open(f"/run/systemd/journal/streams/{{info.st_dev}}:{{info.st_ino}}", "w") as file:
        file.write("# state\\n" + sys.argv[1])
service = subprocess.Popen(
    [sys.executable, "-c",
     "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [10]); print('begun', flush=True)\\n"
     "while signal.sigwait([10]): print('on it goes', flush=True)"],
    stdin=subprocess.DEVNULL, stdout=client, stderr=client, start_new_session=True,
)
client.close()
lines = accepted.makefile()
assert lines.readline() == "begun\\n"
{_ENGINE}
criu("dump", "-t", str(service.pid)); service.wait()
assert lines.readline() == ""
criu("restore", "-d", "--pidfile", "/run/pid")
accepted, _ = journal.accept()
pid = int(open("/run/pid").read())
os.kill(pid, 10)
lines = accepted.makefile()
for _ in range(8):
    print(lines.readline(), end="")
"""


#: Arguments: the name of who never answers, the engine's words.  Prints what was got.
_NOTIFYING = f"""
import os, signal, socket, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "run", "/run"], check=True)
os.makedirs(os.path.dirname(sys.argv[1])); os.mkdir("/run/images")
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); manager.bind(sys.argv[1])
service = subprocess.Popen(
    [sys.executable, "-c",
     "import signal, socket, sys; manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\\n"
     "manager.connect(sys.argv[1]); signal.pthread_sigmask(signal.SIG_BLOCK, [10]); manager.send(b'READY=1')\\n"
     "while signal.sigwait([10]): manager.send(b'WATCHDOG=1')", sys.argv[1]],
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
)
print(manager.recv(99).decode())
{_ENGINE}
criu("dump", "-t", str(service.pid)); service.wait()
criu("restore", "-d", "--pidfile", "/run/pid")
pid = int(open("/run/pid").read())
os.kill(pid, 10)
print(manager.recv(99).decode())
"""


def _got(state: str, scene: str = _SCENE) -> list[str]:
    # What a scene leaves behind when it fails, restored or not, ends with its pid namespace.
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    line = [*apart, sys.executable, "-c", scene, state, *engine.command()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=time_limit_s(60), check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_begins_with_the_same_lines() -> None:
    state = "".join(f"{key}={value}\n" for key, value in zip(_KEYS, _HEADER, strict=True))
    assert _got(state) == [*_HEADER, "on it goes"]


def test_what_the_journal_does_not_say_is_what_any_service_begins_with() -> None:
    assert _got("") == ["", "", "30", "1", "0", "0", "0", "on it goes"]


@pytest.mark.parametrize("name", ["/run/systemd/notify", "/run/systemd/journal/dev-log", "/run/user/7/systemd/notify"])
def test_who_never_answers_is_connected_to_again(name: str) -> None:
    assert _got(name, _NOTIFYING) == ["READY=1", "WATCHDOG=1"]
