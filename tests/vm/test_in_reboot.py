"""The machine reboots into another kernel and its containers count on: checkpoint, reboot, restore, and again."""

import re
import shutil
import subprocess
from pathlib import Path

from harness.events import time_limit_s
from harness.skips import missing
from vm.disks import SYSTEMD
from vm.kernels import by_name
from vm.machine import LabMachine
from vm.payload import REPOSITORY

#: Each with the one before it, and back to the first.
ORDER = ("5.10", "6.1", "6.12", "7.x", "6.1")
_WEB = REPOSITORY / "tests/e2e/programs/counter.go"
_N_ASKED = 3

#: An image of static programs, and two containers of it: one is asked over the network, one wakes by deadlines and
#: looks at clocks, timers, rseq and registers each time (`guest/ticker.c`).
_BEGIN = """
set -e
mkdir -p /srv/image/bin /srv/w && cp counter /srv/image/bin/
gcc -O2 -static -o /srv/image/bin/ticker tests/vm/guest/ticker.c
tar -C /srv/image -c . | podman import -q - localhost/programs
podman run -d --name web --ip 10.88.0.5 localhost/programs /bin/counter
podman run -d --name ticker -v /srv/w:/w localhost/programs /bin/ticker /w/ticks
"""
_WAKE = """
set -e
for name in web ticker; do
    podman container restore --import /srv/$name.tar.gz || {
        find /var/lib/containers /run -name restore.log -exec tail -n 30 {} +; exit 1
    }
done
"""
#: The ticker ticks on: what it says changes, and to the next number.  One that has found something wrong has ended.
_ASK = f"""
set -e
for i in $(seq {_N_ASKED}); do
    until curl --silent --fail --max-time 5 http://10.88.0.5:8080/; do sleep 0.2; done
done
until [ -s /srv/w/ticks ]; do sleep 0.2; done
before=$(cat /srv/w/ticks)
while [ "$(cat /srv/w/ticks)" = "$before" ]; do
    sleep 0.2
    pgrep -x ticker >/dev/null || {{ podman logs ticker; podman ps -a; exit 1; }}
done
echo "ticks from $before to $(cat /srv/w/ticks)"
podman ps --format '{{{{.Names}}}} {{{{.Status}}}}'
"""
_SLEEP = """
for name in web ticker; do
    podman container checkpoint --export /srv/$name.tar.gz $name || {
        find /var/lib/containers /run -name dump.log -exec tail -n 30 {} +; exit 1
    }
    podman rm $name >/dev/null
done
echo "asleep at $(cat /srv/w/ticks)"
"""
#: What may be between a look at the ticker and the next one, which a busy machine makes long.
_BETWEEN_S = 120


def test_containers_count_on(installed: dict[str, Path], tmp_path: Path) -> None:
    if shutil.which("go") is None:
        missing("the command go (Debian: golang-go)")
    web = tmp_path / "counter"
    build = ["env", "CGO_ENABLED=0", "GO111MODULE=off", "go", "build", "-o", str(web), str(_WEB)]
    subprocess.run(build, check=True, timeout=600)
    count = ticks = 0
    with LabMachine(SYSTEMD, n_processors=2, n_megabytes=2048) as machine:
        for at, name in enumerate(ORDER):
            is_last = at == len(ORDER) - 1
            script = (_WAKE if at else _BEGIN) + _ASK + ("" if is_last else _SLEEP)
            result = machine.run(by_name(name), script, payload={**installed, "counter": web}, keep=True, timeout_s=600)
            assert result.status == 0, f"{name}: {result.output}"
            answers = [str(count + each) for each in range(_N_ASKED)]
            assert [line for line in result.output.splitlines() if line in answers] == answers, result.output
            count += _N_ASKED
            found = re.search(r"ticks from +(\d+) to +(\d+)", result.output)
            assert found is not None, result.output
            # It has not begun anew, and has not made up for the time that it slept.
            if at:
                assert ticks <= int(found[1]) < ticks + time_limit_s(_BETWEEN_S), result.output
            assert int(found[1]) < int(found[2]), result.output
            if asleep := re.search(r"asleep at +(\d+)", result.output):
                ticks = int(asleep[1])
