#!/bin/bash
# What systemd makes of programs, dumped and restored under it: `units.sh CASE...` says "CASE ok", or what was said last.
# In a case: a command that fails ends it.  `criu` restores control groups with their limits, `torpor` into its own.
cd /srv || exit 1
mkdir -p w
gcc -O2 -o /usr/local/bin/keeper /lab/tests/vm/keeper.c
gcc -O2 -static -o /usr/local/bin/ticker /lab/tests/vm/guest/ticker.c

main() { systemctl show -p MainPID --value $1.service; }
group() { echo /sys/fs/cgroup$(systemctl show -p ControlGroup --value $1.service); }
# The number in the file rises.
goes_on() {
    local was=$(cat w/$1)
    until [ -s w/$1 ] && [ "$(cat w/$1)" != "$was" ]; do sleep 0.3; done
}
# systemd has seen its end, and its name is free.
ended() {
    until systemctl show -p ActiveState --value $name.service | grep -qE 'failed|inactive'; do sleep 0.2; done
    systemctl reset-failed $name.service 2>/dev/null || true
}
dump() {
    mkdir -p images/$name$round
    criu dump -D images/$name$round -t $(main $name) -v4 -o dump.log "$@" || { grep Error images/$name$round/dump.log; return 1; }
    ended
}
restore() {
    criu restore -d -D images/$name$round -v4 -o restore.log --pidfile /srv/pid "$@" ||
        { grep -E 'Error|Warn' images/$name$round/restore.log; return 1; }
}
# It fails, and what it says is in `said`.
refused() { if "$@" >said 2>&1 </dev/null; then return 1; fi; }
begin() { touch w/$name; systemd-run --quiet --unit=$name "$@"; }
# All that can be set in a group, one file a line.
limits() { (cd $1 && find . -maxdepth 1 -type f -perm -600 ! -name 'cgroup.*' ! -name '*.pressure' ! -name '*.peak' \
    -exec grep -H . {} + | sort); }

properties() {
    begin --slice=lab.slice -p CPUQuota=50% -p CPUWeight=200 -p MemoryMin=4M -p MemoryLow=16M -p MemoryHigh=48M \
        -p MemoryMax=64M -p MemorySwapMax=8M -p TasksMax=50 -p IOWeight=200 -p IOReadIOPSMax='/dev/vda 1000' \
        -p IOWriteBandwidthMax='/dev/vda 8M' -p AllowedCPUs=0 keeper /srv/w/$name 8
    goes_on $name
    limits=$(group $name)
    limits $limits >before
    for limit in memory.high:50331648 memory.max:67108864 pids.max:50 cpu.weight:200 'cpu.max:50000 100000'; do
        grep -qx "./$limit" before || { cat before; return 1; }
    done
    for round in 1 2; do
        dump
        restore
        goes_on $name
        limits $limits >after
        diff before after
        [ "$(cut -d: -f3 /proc/$(cat pid)/cgroup)" = ${limits#/sys/fs/cgroup} ]
        # No unit any more: systemd knows nothing of it.
        main() { cat /srv/pid; }
    done
}

delegated() {
    cat >delegated.py <<END
import os, time
group = "/sys/fs/cgroup" + open("/proc/self/cgroup").read().split("::")[1].strip()
os.mkdir(group + "/main"), os.mkdir(group + "/lower")
open(group + "/main/cgroup.procs", "w").write("0")
open(group + "/cgroup.subtree_control", "w").write("+memory +pids")
open(group + "/lower/memory.max", "w").write("50M")
open(group + "/lower/pids.max", "w").write("20")
if os.fork() == 0:
    open(group + "/lower/cgroup.procs", "w").write("0")
    for number in range(1 << 30):
        open("/srv/w/delegated", "w").write(str(number))
        time.sleep(0.5)
os.wait()
END
    begin -p Delegate=yes -p MemoryMax=200M python3 /srv/delegated.py
    goes_on $name
    limits=$(group $name)
    { limits $limits/main; limits $limits/lower; } >before
    # (What is above the groups of its processes is whoever's they are in: the limits of the unit.)
    # Nobody is asked here: it is told what would be lost, and nothing is stopped.
    refused torpor checkpoint $name.service -o images/none
    grep -q "the control groups that delegated.service has made" said
    dump
    restore
    goes_on $name
    { limits $limits/main; limits $limits/lower; } >after
    diff before after
    [ "$(cat $limits/main/cgroup.procs)" = "$(cat pid)" ]
    [ -n "$(cat $limits/lower/cgroup.procs)" ]
}

# Version 2's freezer, as a way to stop what forks all the time.
freezer() {
    begin sh -c 'n=0; while :; do n=$((n+1)); /bin/echo $n >/srv/w/freezer; done'
    goes_on $name
    dump --freeze-cgroup $(group $name)
    restore
    goes_on $name
    kill -9 $(cat pid)
}

frozen() {
    begin keeper /srv/w/$name 8
    goes_on $name
    systemctl freeze $name.service
    refused torpor checkpoint $name.service -o images/none
    grep -q "is frozen by the control group .*$name.service" said
    # Who freezes a group of version 2 may do so for the dump, as Docker does: restored, it runs.
    dump --freeze-cgroup $(group $name)
    restore
    goes_on $name
}

# sd_notify(3): ready, and alive: systemd ends it if it says nothing for so long.
watchdog() {
    cat >watchdog.py <<'END'
import os, socket, time
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"])
manager.send(b"READY=1")
for number in range(1 << 30):
    assert os.environ["WATCHDOG_PID"] == str(os.getpid())
    manager.send(b"WATCHDOG=1\nSTATUS=%d" % number)
    open("/srv/w/watchdog", "w").write(str(number))
    time.sleep(0.5)
END
    watched='-p NotifyAccess=all -p WatchdogSec=30 -p TimeoutStopSec=5'
    begin -p Type=notify $watched python3 /srv/watchdog.py
    goes_on $name
    for round in 1 2; do
        torpor checkpoint $name.service -o /srv/images/$name$round
        ended
        begin -p Type=forking $watched torpor restore /srv/images/$name$round
        goes_on $name
        was=$(systemctl show -p StatusText --value $name.service)
        until [ "$(systemctl show -p StatusText --value $name.service)" != "$was" ]; do sleep 0.3; done
    done
    kill -STOP $(main $name)
    until [ "$(systemctl show -p ActiveState --value $name.service)" = failed ]; do sleep 0.5; done
    [ "$(systemctl show -p Result --value $name.service)" = watchdog ]
}

# A socket that systemd has made and handed over; without its unit nobody starts the service anew.
socket() {
    cat >answers.py <<'END'
import os, socket
assert os.environ["LISTEN_FDS"] == "1"
listener = socket.socket(fileno=3)
for number in range(1 << 30):
    client, _ = listener.accept()
    assert os.environ["LISTEN_PID"] == str(os.getpid())
    client.sendall(b"%d\n" % number)
    client.close()
END
    begin --socket-property=ListenStream=127.0.0.1:7777 python3 /srv/answers.py
    ask() { read -r answer </dev/tcp/127.0.0.1/7777; echo $answer; }
    [ $(ask) = 0 ]
    # What it answered is done with.
    until ! ss -Htn 'sport = 7777 or dport = 7777' | grep -qv TIME-WAIT; do sleep 0.2; done
    systemctl stop $name.socket
    for round in 1 2; do
        torpor checkpoint $name.service -o /srv/images/$name$round
        ended
        begin -p Type=forking torpor restore /srv/images/$name$round
        [ $(ask) = $round ]
        until ! ss -Htn 'sport = 7777 or dport = 7777' | grep -qv TIME-WAIT; do sleep 0.2; done
    done
}

image() {
    if podman image exists localhost/programs; then return; fi
    mkdir -p image/bin
    cp /usr/local/bin/ticker image/bin/
    tar -C image -c . | podman import -q - localhost/programs
}

# `podman generate systemd`: a unit that starts the container.
generated() {
    image
    podman create --name $name -v /srv/w:/w localhost/programs /bin/ticker /w/$name
    for restart in on-failure no; do
        podman generate systemd --name --restart-policy $restart $name >/etc/systemd/system/$name.service
        systemctl daemon-reload
        systemctl start $name.service
        goes_on $name
        if [ $restart = on-failure ]; then
            refused torpor checkpoint $name
            grep -q "$name.service: systemd starts it anew when it has ended (Restart=on-failure)" said
            systemctl stop $name.service
        fi
    done
    torpor checkpoint $name
    until [ "$(systemctl show -p ActiveState --value $name.service)" != active ]; do sleep 0.5; done
    torpor restore $name
    goes_on $name
    podman rm -f -t 0 $name
}

# Without root Podman checkpoints nothing, and the process alone is no way round that.
rootless() {
    id someone >/dev/null 2>&1 || useradd --create-home someone
    loginctl enable-linger someone
    until [ -S /run/user/$(id -u someone)/bus ]; do sleep 0.5; done
    image
    podman save localhost/programs -o image.tar
    chmod 644 image.tar
    as() { runuser -u someone -- env XDG_RUNTIME_DIR=/run/user/$(id -u someone) \
        DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$(id -u someone)/bus "$@"; }
    cd /home/someone
    as podman load -q -i /srv/image.tar
    as podman run -d --name theirs --network none localhost/programs /bin/ticker /ticks
    pid=$(as podman inspect --format '{{.State.Pid}}' theirs)
    refused torpor checkpoint $pid -o /srv/images/none
    grep -q "is in the container .* that user $(id -u someone) runs by podman without root" said
    refused as podman container checkpoint theirs
    grep -q "requires root" said
    kill -0 $pid
    as podman rm -f -t 0 theirs
}

for name in "$@"; do
    # Not behind && or if: there a failing command ends nothing.
    rm -f said
    (set -eE; trap 'echo "$name: line $LINENO: $BASH_COMMAND"; [ ! -e said ] || tail -n 3 said' ERR; $name) >log 2>&1
    if [ $? = 0 ]; then echo "$name ok"; else tail -n 15 log; fi
    systemctl stop $name.service 2>/dev/null
done
