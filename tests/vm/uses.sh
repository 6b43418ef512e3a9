#!/bin/bash
# What users do first, on whatever kernel this is: programs by `criu`, a job by `torpor`, a container by Podman.
# uses.sh ENGINE[=COMMAND]...: a line "NAME ENGINE ok", or what was said last. Podman's container is carried by `criu`
# on PATH, and only where there is a Podman.
uses=${USES:-sleep counter threads shell python listener connection job container}
base=/srv/uses
mkdir -p $base
cd $base || exit 1
# The shell tells of each program that it was killed.
exec 2>errors

cat >counter.py <<'EOF'
import sys, threading, time
counts = [0] * int(sys.argv[2])
def count(at):
    while True:
        counts[at] += 1
        time.sleep(0.05)
for at in range(len(counts)):
    threading.Thread(target=count, args=(at,), daemon=True).start()
while True:
    open(sys.argv[1], "w").write(f"{min(counts)}\n")
    time.sleep(0.1)
EOF
cat >tcp.py <<'EOF'
import socket, sys, threading, time
server = socket.create_server(("127.0.0.1", int(sys.argv[2])))
mine = socket.create_connection(server.getsockname())
theirs, _ = server.accept()
if sys.argv[3] == "listener":
    mine.close(), theirs.close()
for number in range(1 << 30):
    if sys.argv[3] == "listener":
        mine = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
        theirs, _ = server.accept()
    mine.sendall(b"%d\n" % number)
    got = int(theirs.recv(64))
    assert got == number
    if sys.argv[3] == "listener":
        mine.close(), theirs.close()
    open(sys.argv[1], "w").write(f"{got}\n")
    time.sleep(0.1)
EOF

# It goes on: the number in the file rises above what it was. A program without one has to be there.
goes_on() {
    local was=$1 until=$((SECONDS + 60))
    [ -z "$was" ] && { kill -0 $2; return; }
    while [ $SECONDS -lt $until ]; do
        [ "$(cat $name.count 2>/dev/null || echo 0)" -gt "$was" ] 2>/dev/null && return 0
        sleep 0.2
    done
    return 1
}
last_error() { grep -ahE 'Error' "$1" 2>/dev/null | head -n 1 | cut -c1-160; }

program() {
    local pid
    rm -rf images $name.count; mkdir images
    setsid "$@" </dev/null >/dev/null 2>&1 & pid=$!
    if [ $name = sleep ]; then was=; else was=0; fi
    goes_on "$was" $pid || { echo "$name $engine did not begin"; return; }
    if ! $command dump -t $pid -D images -o dump.log -v4 --tcp-established >said 2>&1; then
        echo "$name $engine dump: $(last_error images/dump.log || tail -n 1 said)"
        kill -9 $pid; wait $pid 2>/dev/null; return
    fi
    wait $pid 2>/dev/null
    [ -z "$was" ] || was=$(cat $name.count)
    if ! $command restore -d -D images -o restore.log -v4 --tcp-established >said 2>&1; then
        echo "$name $engine restore: $(last_error images/restore.log || tail -n 1 said)"; return
    fi
    goes_on "$was" $pid && echo "$name $engine ok" || echo "$name $engine does not go on"
    kill -9 $pid
}

job() {
    said() { torpor logs count 2>/dev/null | tail -n 1 || echo 0; }
    reaches() { for _ in $(seq 300); do [ "$(said)" -ge $1 ] 2>/dev/null && return 0; sleep 0.2; done; return 1; }
    torpor run --name count -d -- sh -c 'n=0; while sleep 0.2; do n=$((n+1)); echo $n; done' >said 2>&1 &&
        reaches 2 && torpor checkpoint count >said 2>&1 && was=$(said) &&
        torpor restore -d count >said 2>&1 && reaches $((was + 1)) && echo "$name $engine ok" ||
        echo "$name $engine $(tail -n 1 said)"
    torpor kill count >/dev/null 2>&1
}

container() {
    command -v podman >/dev/null || return
    rm -rf image ticks; mkdir -p image/bin ticks
    gcc -O2 -static -o image/bin/ticker /lab/tests/vm/guest/ticker.c
    tar -C image -c . | podman import -q - localhost/programs >/dev/null
    local file=ticks/ticks group how='--runtime runc --cgroup-manager cgroupfs'
    ticks() { was=$(cat $file 2>/dev/null); for _ in $(seq 100); do
        [ -s $file ] && [ "$(cat $file)" != "$was" ] && return 0; sleep 0.3; done; return 1; }
    limits() { group=/sys/fs/cgroup$(podman $how inspect -f '{{.State.CgroupPath}}' limited)
        cat $group/memory.max $group/pids.max; podman $how inspect -f '{{.NetworkSettings.IPAddress}}' limited; }
    podman $how run -d --name limited --memory 64m --pids-limit 50 -v $base/ticks:/w \
        localhost/programs /bin/ticker /w/ticks 8 >said 2>&1 && ticks && limits >before &&
        podman $how container checkpoint --export c.tar.gz limited >said 2>&1 &&
        podman $how rm limited >/dev/null 2>&1 &&
        podman $how container restore --import c.tar.gz >said 2>&1 && ticks && limits >after &&
        cmp before after && echo "$name $engine ok" || {
        echo "$name $engine $(tail -n 1 said)"
        find /var/lib/containers /run -name '*.log' -path '*userdata*' -exec grep -ah Error {} + | head -n 4; }
    podman $how rm -f -t 0 limited >/dev/null 2>&1
}

for engine in "$@"; do
    command=${engine#*=} engine=${engine%%=*}
    for name in $uses; do
        case $name in
            sleep) program sleep 1000 ;;
            counter) program python3 counter.py $name.count 1 ;;
            threads) program python3 counter.py $name.count 8 ;;
            shell) program sh -c "n=0; while sleep 0.1; do n=\$((n+1)); echo \$n >$name.count; done" ;;
            python) program python3 -c "
import json, sqlite3, time
for n in range(1 << 30):
    open('$name.count', 'w').write(str(n)); time.sleep(0.1)" ;;
            listener | connection) program python3 tcp.py $name.count 4$(($(date +%s) % 1000 + 1000)) $name ;;
            job | container) [ "$engine" = torpor ] && $name ;;
        esac
    done
done
