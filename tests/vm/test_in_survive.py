"""`torpor setup --survive-reboot`: containers, a pod and jobs go through reboots into other kernels by themselves.

systemd stops the machine as it does anywhere, and boots it with the next kernel from the same disk; nobody types more
than `torpor survive`. What cannot be checkpointed is reported at the next boot.
"""

import re
import shutil
import subprocess
from pathlib import Path

from harness.events import time_limit_s
from harness.skips import missing
from vm.disks import PLAIN, SYSTEMD
from vm.kernels import by_name
from vm.machine import LabMachine, Result
from vm.payload import REPOSITORY

#: Each with the one before it, and back to the first.
ORDER = ("5.10", "6.1", "6.12", "7.x", "6.1")
_WEB = REPOSITORY / "tests/e2e/programs/counter.go"
_N_ASKED = 3

#: `stuck` has a connection open, and nobody has said --tcp-established.
_BEGIN = """
set -e
rm -f /usr/local/sbin/criu /usr/local/sbin/torpor
/opt/torpor/bin/torpor setup --survive-reboot --timeout 400
mkdir -p /srv/image/bin /srv/w && cp counter /srv/image/bin/
gcc -O2 -static -o /srv/image/bin/ticker tests/vm/guest/ticker.c
tar -C /srv/image -c . | podman import -q - localhost/programs
systemctl disable --quiet podman-auto-update.service podman-auto-update.timer
podman run -d --name web --ip 10.88.0.5 localhost/programs /bin/counter
podman run -d --name ticker --requires web --label io.torpor.survive-reboot=true \\
    -v /srv/w:/w localhost/programs /bin/ticker /w/container
podman pod create --name shop
podman run -d --name member --ulimit host --pod shop -v /srv/w:/w localhost/programs /bin/ticker /w/pod
torpor run -d --name job -- /srv/image/bin/ticker /srv/w/job
cat >/srv/stuck.py <<END
import socket, time
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
time.sleep(100000)
END
torpor run -d --name stuck -- python3 /srv/stuck.py
torpor survive web member job stuck
torpor survive --save --dry-run || echo "dry run: $?"
# Only from the next boot on: a machine that is switched off does all that, too.
sed -i 's/systemctl poweroff/systemctl reboot/' /usr/local/sbin/lab-job
"""
#: The tickers tick on: what they say changes, and to the next number.
_ASK = f"""
for i in $(seq {_N_ASKED}); do
    until curl --silent --fail --max-time 5 http://10.88.0.5:8080/; do sleep 0.2; done
done
for which in container pod job; do
    until [ -s /srv/w/$which ]; do sleep 0.2; done
    before=$(cat /srv/w/$which)
    while [ "$(cat /srv/w/$which)" = "$before" ]; do sleep 0.2; done
    echo "$which ticks from $before to $(cat /srv/w/$which)"
done
podman ps --format '{{{{.Names}}}} {{{{.Status}}}}'
"""
_LOOK = """
systemctl --no-pager --lines=0 status torpor-restore.service torpor-save.service torpor-job.scope || true
journalctl --no-pager -o cat -u torpor-save.service -u torpor-restore.service | tail -n 40
torpor ps
torpor survive
torpor survive --restore || echo "again: $?"
"""
#: The same of a job alone, by hand, where no systemd does it.
_FIRST = """
set -e
mkdir -p /srv/w
cp ticker /srv/
torpor run -d --name job -- /srv/ticker /srv/w/job
torpor survive job
"""
_WAKE = "set -e\ntorpor survive --restore\n"
_TICKS = """
until [ -s /srv/w/job ]; do sleep 0.2; done
before=$(cat /srv/w/job)
while [ "$(cat /srv/w/job)" = "$before" ]; do sleep 0.2; done
echo "job ticks from $before to $(cat /srv/w/job) under $(uname -r)"
"""
_SAVE = "torpor survive --save\n"
#: What may be between a look at a ticker and the next one, which a busy machine makes long.
_BETWEEN_S = 200


def test_they_go_through_reboots(installed: dict[str, Path], tmp_path: Path) -> None:
    if shutil.which("go") is None:
        missing("the command go (Debian: golang-go)")
    web = tmp_path / "counter"
    build = ["env", "CGO_ENABLED=0", "GO111MODULE=off", "go", "build", "-o", str(web), str(_WEB)]
    subprocess.run(build, check=True, timeout=600)
    # Later it is on the disk, as it is on anybody's.
    given = {**installed, "counter": web}
    count, ticks = 0, {"container": 0, "pod": 0, "job": 0}
    with LabMachine(SYSTEMD, n_processors=2, n_megabytes=2048) as machine:
        for at, name in enumerate(ORDER):
            script = ("set -e\n" + _LOOK if at else _BEGIN) + _ASK
            result = machine.run(
                by_name(name), script, payload={} if at else given, keep=True, systemd=True, timeout_s=600
            )
            print(f"==== {name}\n{result.output}")
            assert result.status == 0, f"{name}: {result.output}"
            count = _counts_on(result, count)
            _tick_on(result, ticks, is_first=at == 0)
            if at == 1:
                _is_reported(result)


def test_jobs_go_through_kernels_by_hand(installed: dict[str, Path], tmp_path: Path) -> None:
    ticks = {"job": 0}
    ticker = tmp_path / "ticker"
    source = Path(__file__).parent / "guest/ticker.c"
    subprocess.run(["cc", "-O2", "-static", "-o", str(ticker), str(source)], check=True, timeout=300)
    with LabMachine(PLAIN) as machine:
        for at, name in enumerate(ORDER):
            is_last = at == len(ORDER) - 1
            script = (_WAKE if at else _FIRST) + _TICKS + ("" if is_last else _SAVE)
            result = machine.run(
                by_name(name), script, payload={} if at else {**installed, "ticker": ticker}, keep=True, timeout_s=300
            )
            print(f"==== {name}\n{result.output}")
            assert result.status == 0, f"{name}: {result.output}"
            _tick_on(result, ticks, is_first=at == 0)


def _counts_on(result: Result, count: int) -> int:
    answers = [str(count + each) for each in range(_N_ASKED)]
    assert [line for line in result.output.splitlines() if line in answers] == answers, result.output
    return count + _N_ASKED


def _tick_on(result: Result, ticks: dict[str, int], *, is_first: bool) -> None:
    """They have not begun anew, and have not made up for the time that they slept."""
    for which, last in ticks.items():
        found = re.search(rf"{which} ticks from +(\d+) to +(\d+)", result.output)
        assert found is not None, result.output
        assert is_first or last <= int(found[1]) < last + time_limit_s(_BETWEEN_S), result.output
        assert int(found[1]) < int(found[2]), result.output
        ticks[which] = int(found[2])


def _is_reported(result: Result) -> None:
    assert "job:stuck: NOT SAVED" in result.output and "--tcp-established" in result.output
    # It has no handler for SIGTERM, so systemd would wait for it.
    assert "job:stuck: ended" in result.output
    assert "1 of 5 did not make it through the reboot: job:stuck" in result.output
