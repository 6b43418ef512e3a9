"""systemd as init and control groups version 2, as distributions have them: Podman's limits, a service of systemd."""

from pathlib import Path

import pytest

from vm import payload
from vm.disks import SYSTEMD, TRIXIE, Image
from vm.kernels import Kernel
from vm.machine import LabMachine

#: Each with its runtime: Debian's crun has checkpoints since trixie, with sid's libcriu.
_PODMANS = [
    pytest.param(SYSTEMD, "runc", id="podman4-runc"),
    pytest.param(TRIXIE, "runc", id="podman5-runc"),
    pytest.param(TRIXIE, "crun", id="podman5-crun"),
]

#: Of 64 MB the program keeps 60: whoever restored it inside of its own limits would be killed for it.
_USED_PERCENT = 90
#: By default a dump gives up after ten seconds in which not all has stopped: few on a busy emulator.
_PATIENT = "mkdir -p /etc/criu; echo 'timeout 120' >/etc/criu/default.conf\n"
_LIMITED = """
set -e
printf '[engine]\\nruntime = "RUNTIME"\\n' >/etc/containers/containers.conf
mkdir -p /srv/image/bin /srv/w
gcc -O2 -static -o /srv/image/bin/ticker tests/vm/guest/ticker.c
tar -C /srv/image -c . | podman import -q - localhost/programs
podman info --format 'manager {{.Host.CgroupManager}} {{.Host.CgroupsVersion}} {{.Host.OCIRuntime.Name}}'
podman run -d --name limited --memory 64m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 \\
    --pids-limit 50 --device-write-bps /dev/vda:8mb -v /srv/w:/w localhost/programs /bin/ticker /w/ticks 60
limits() {
    group=/sys/fs/cgroup$(podman inspect --format '{{.State.CgroupPath}}' limited)
    echo "$1 percent $(($(cat $group/memory.current) * 100 / $(cat $group/memory.max)))"
    echo "$1 $(grep '^oom_kill ' $group/memory.events)"
    # crun has a group of its own below the scope that systemd has made for it: what is not said there is said here.
    for file in memory.max memory.swap.max memory.low cpu.max cpu.weight cpuset.cpus pids.max io.max; do
        for place in $group ${group%/container}; do echo "$1 $file $(cat $place/$file)"; done
    done
}
ticks() {
    was=$(cat /srv/w/ticks)
    until [ -s /srv/w/ticks ] && [ "$(cat /srv/w/ticks)" != "$was" ]; do sleep 0.5; done
}
touch /srv/w/ticks
ticks
limits 0
told() { find /var/lib/containers -name $1 -exec tail {} +; exit 1; }
for round in 1 2; do
    podman container checkpoint --export /srv/limited.tar.gz limited || told dump.log
    podman rm limited
    podman container restore --import /srv/limited.tar.gz || told restore.log
    ticks
    limits $round
done
"""

_UNIT = """
mkdir -p /srv/w
gcc -O2 -o /usr/local/bin/keeper tests/vm/keeper.c
limited() {
    systemd-run --quiet --unit=ticking --slice=lab.slice -p MemoryLow=32M -p CPUQuota=50% -p TasksMax=50 \\
        -p IOWriteBandwidthMax='/dev/vda 8M' "$@" || exit 1
    ticks
    # When it runs: until then there is not room enough for who restores it, too.
    systemctl set-property --runtime ticking.service MemoryMax=64M
}
limits() {
    group=/sys/fs/cgroup/lab.slice/ticking.service
    echo "$1 percent $(($(cat $group/memory.current) * 100 / $(cat $group/memory.max)))"
    for file in memory.max memory.low cpu.max pids.max io.max; do echo "$1 $file $(cat $group/$file)"; done
}
ticks() {
    was=$(cat /srv/w/ticks)
    until [ -s /srv/w/ticks ] && [ "$(cat /srv/w/ticks)" != "$was" ]; do sleep 0.5; done
}
touch /srv/w/ticks
limited /usr/local/bin/keeper /srv/w/ticks 60
limits 0
for round in 1 2; do
    torpor checkpoint ticking.service -o /srv/ticking$round || exit 1
    systemctl reset-failed ticking.service
    # In the groups of whoever restores it: and that is the unit again, whose main process it is.
    limited -p Type=forking torpor restore /srv/ticking$round
    limits $round
done
echo "main $(cat /proc/$(systemctl show -p MainPID --value ticking.service)/comm)"
systemctl stop ticking.service

refused() {
    echo "refused $(torpor checkpoint $1.service -o /srv/$1 2>&1)"
    echo "runs $(systemctl show -p ActiveState -p NRestarts $1.service | tr '\\n' ' ')"
    systemctl stop "$1.*"
}
systemd-run --quiet --unit=again -p Restart=always sleep 1000
refused again
systemd-run --quiet --unit=private -p PrivateTmp=yes sleep 1000
until grep -q systemd-private /proc/$(systemctl show -p MainPID --value private)/mountinfo; do sleep 0.2; done
refused private
systemd-run --quiet --unit=called --socket-property=ListenStream=127.0.0.1:7777 sleep 1000
systemctl start called.service
refused called
"""

_ENGINES = """
mkdir -p /srv/image/bin /srv/w /etc/containers/systemd
touch /srv/w/quad /srv/w/dock
gcc -O2 -static -o /srv/image/bin/ticker tests/vm/guest/ticker.c
cp /bin/busybox /srv/image/bin/
tar -C /srv/image -c . | podman import -q - localhost/programs
ticks() {
    was=$(cat $1)
    until [ -s $1 ] && [ "$(cat $1)" != "$was" ]; do sleep 0.5; done
}
quadlet() {
    cat >/etc/containers/systemd/quad.container <<END
[Container]
Image=localhost/programs
ContainerName=quad
Exec=/bin/ticker /w/quad
Volume=/srv/w:/w
[Service]
Restart=$1
END
    systemctl daemon-reload
    systemctl start quad.service || exit 1
    ticks /srv/w/quad
}
quadlet always
echo "refused $(torpor checkpoint quad -o /srv/quad.tar.gz 2>&1)"
echo "refused $(torpor checkpoint --leave-running quad.service -o /srv/quad 2>&1)"
echo "runs $(systemctl show -p ActiveState -p NRestarts quad.service | tr '\\n' ' ')"
systemctl stop quad.service
quadlet no
torpor checkpoint quad -o /srv/quad.tar.gz || exit 1
until [ "$(systemctl show -p ActiveState --value quad.service)" = failed ]; do sleep 0.5; done
echo "asleep $(cat /srv/w/quad)"
torpor restore /srv/quad.tar.gz || exit 1
ticks /srv/w/quad
echo "awake $(cat /srv/w/quad)"
podman rm -f -t 0 quad

systemctl start docker.service
tar -C /srv/image -c . | docker import - programs
# No timers: docker freezes it before criu is called, and what a timer has missed is not carried.
cat >/srv/w/count.sh <<END
while :; do n=\\$((n + 1)); echo \\$n >/w/new; /bin/busybox mv /w/new /w/dock; /bin/busybox sleep 1; done
END
# Docker's own: what it hands to containerd may be there already, from an earlier time, which is an error to it.
wake() {
    docker start --checkpoint $1 dock 2>said && return
    cat said
    grep -q 'already exists' said || return 1
    ctr --namespace moby content rm $(grep -o 'sha256:[0-9a-f]*' said)
    docker start --checkpoint $1 dock
}
docker run -d --name dock --network none --memory 64m --pids-limit 50 -v /srv/w:/w programs /bin/busybox sh /w/count.sh
ticks /srv/w/dock
for round in 1 2; do
    docker checkpoint create dock c$round || exit 1
    echo "asleep $(cat /srv/w/dock)"
    wake c$round || exit 1
    ticks /srv/w/dock
    echo "awake $(cat /srv/w/dock)"
    group=$(sed -n 's/^0:://p' /proc/$(docker inspect --format '{{.State.Pid}}' dock)/cgroup)
    echo "dock $(cat /sys/fs/cgroup$group/memory.max) $(cat /sys/fs/cgroup$group/pids.max)"
done
"""

_SERVICE = """
set -e
systemd-run --unit=counting /bin/sh -c 'n=0; while :; do n=$((n+1)); echo "count $n"; sleep 1; done'
said() { journalctl -o cat -u counting | sed -n 's/^count //p' | tail -n 1; }
until [ "$(said)" -ge 2 ] 2>/dev/null; do sleep 0.5; done
mkdir /srv/images
criu dump -D /srv/images -t $(systemctl show -p MainPID --value counting) -o dump.log -v4 || {
    tail -n 20 /srv/images/dump.log; exit 1
}
before=$(journalctl -o cat | sed -n 's/^count //p' | tail -n 1)
criu restore -d -D /srv/images -o restore.log -v4 || { tail -n 20 /srv/images/restore.log; exit 1; }
until [ "$(journalctl -o cat | sed -n 's/^count //p' | tail -n 1)" -gt $before ]; do sleep 0.5; done
journalctl -o cat | sed -n 's/^count //p' | tr '\\n' ' '
echo
journalctl -o verbose -n 1 -t sh | grep -E 'SYSLOG_IDENTIFIER|UNIT='
"""


@pytest.mark.parametrize(("image", "runtime"), _PODMANS)
def test_limits_are_equal_after_a_restore(kernel: Kernel, image: Image, runtime: str) -> None:
    given = {**payload.environment(image.suite), **payload.tests()}
    script = _PATIENT + _LIMITED.replace("RUNTIME", runtime)
    with LabMachine(image, n_processors=2, n_megabytes=2048) as machine:
        result = machine.run(kernel, script, payload=given, systemd=True, timeout_s=600)
    assert result.status == 0, result.output
    lines = result.output.splitlines()
    assert f"manager systemd v2 {runtime}" in lines
    # Before, after a restore, and after the checkpoint of what was restored.
    limits = [[line[2:] for line in lines if line.startswith(f"{when} ")] for when in (0, 1, 2)]
    used = [int(each.pop(0).removeprefix("percent ")) for each in limits]
    assert min(used) >= _USED_PERCENT, result.output
    for line in ("memory.max 67108864", "memory.low 33554432", "cpu.max 50000 100000", "pids.max 50", "oom_kill 0"):
        assert line in limits[0], result.output
    # Of what Podman asks crun 1.21 for, that sets everything but this.
    if runtime != "crun":
        assert any(line.startswith("io.max") and "wbps=8388608" in line for line in limits[0]), result.output
    assert limits[0] == limits[1] == limits[2], result.output


def test_a_service_goes_on_writing_to_the_journal(kernel: Kernel, installed: dict[str, Path]) -> None:
    with LabMachine(SYSTEMD, n_processors=2) as machine:
        result = machine.run(kernel, _PATIENT + _SERVICE, payload=installed, systemd=True, timeout_s=300)
    assert result.status == 0, result.output
    counts = next(line for line in result.output.splitlines() if line.startswith("1 2 ")).split()
    assert counts == [str(number) for number in range(1, len(counts) + 1)], result.output
    assert "SYSLOG_IDENTIFIER=sh" in result.output


def test_a_unit_keeps_its_limits_and_is_a_unit_again(kernel: Kernel, installed: dict[str, Path]) -> None:
    with LabMachine(SYSTEMD, n_processors=2) as machine:
        result = machine.run(kernel, _PATIENT + _UNIT, payload=installed, systemd=True, timeout_s=400)
    assert result.status == 0, result.output
    lines = result.output.splitlines()
    limits = [[line[2:] for line in lines if line.startswith(f"{when} ")] for when in (0, 1, 2)]
    assert min(int(each.pop(0).removeprefix("percent ")) for each in limits) >= _USED_PERCENT, result.output
    assert {"memory.max 67108864", "cpu.max 50000 100000", "pids.max 50"} < set(limits[0]), result.output
    assert limits[0] == limits[1] == limits[2], result.output
    assert "main keeper" in lines
    # Before anything was stopped, each by its reason.
    refused = [line for line in lines if line.startswith("refused ")]
    for line, reason in zip(
        refused, ("Restart=always", "PrivateTmp=yes", "called.socket holds its sockets"), strict=True
    ):
        assert reason in line, result.output
    assert [line for line in lines if line.startswith("runs ")] == ["runs NRestarts=0 ActiveState=active "] * 3


def test_quadlet_and_docker(kernel: Kernel) -> None:
    given = {**payload.environment(TRIXIE.suite), **payload.tests()}
    with LabMachine(TRIXIE, n_processors=2, n_megabytes=2048) as machine:
        result = machine.run(kernel, _PATIENT + _ENGINES, payload=given, systemd=True, timeout_s=600)
    assert result.status == 0, result.output
    lines = result.output.splitlines()
    anew, inside = (line for line in lines if line.startswith("refused "))
    assert "quad.service: systemd starts it anew when it has ended (Restart=always)" in anew, result.output
    assert "is in the container quad of podman" in inside, result.output
    assert "runs NRestarts=0 ActiveState=active " in lines
    asleep, awake = (
        [int(line.split()[1]) for line in lines if line.startswith(f"{when} ")] for when in ("asleep", "awake")
    )
    assert len(asleep) == len(awake) == 3
    for before, after in zip(asleep, awake, strict=True):
        assert before < after, result.output
    assert lines.count("dock 67108864 50") == 2, result.output
