"""Databases: PostgreSQL with an open session, sqlite3 with its write-ahead log mapped."""

import os
import pwd
import subprocess
from pathlib import Path

from harness.program import Program, need

PROGRAMS = Path(__file__).parent / "programs"


def test_sqlite_wal(program: Program) -> None:
    """An open transaction over a mapped write-ahead log commits after the restore."""
    script = program.base / "wal.py"
    script.write_text(
        "import sqlite3, os, sys, time\n"
        "base = sys.argv[1]\n"
        "db = sqlite3.connect(base + '/data.db', isolation_level=None)\n"
        "print(db.execute('pragma journal_mode=wal').fetchone()[0])\n"
        "db.execute('pragma mmap_size=1000000')\n"
        "db.execute('create table t(x)')\n"
        "db.execute('insert into t values (1)')\n"
        "db.execute('begin')\n"
        "db.execute('insert into t values (2)')\n"
        "print('ready', flush=True)\n"
        "while not os.path.exists(base + '/go'): time.sleep(0.01)\n"
        "db.execute('insert into t values (3)')\n"
        "db.execute('commit')\n"
        "print('rows', [r[0] for r in db.execute('select x from t order by x')], flush=True)\n"
        "time.sleep(1000)\n"
    )
    program.dump_options = ("--file-locks",)
    program.restore_options = ("--file-locks",)
    program.start([need("python3"), str(script), str(program.base)])
    program.wait_log("ready")
    program.sleep_and_wake()
    (program.base / "go").touch()
    program.wait_log(r"rows \[1, 2, 3\]")
    answer = subprocess.run(
        [need("sqlite3"), str(program.base / "data.db"), "select sum(x) from t"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "6"


def test_postgresql_with_an_open_session(program: Program) -> None:
    """A session over a unix socket, client and server in one tree, still has its temporary table."""
    server, initdb, psql = need("postgres"), need("initdb"), need("psql")
    user = pwd.getpwnam("postgres")
    data, sockets = program.base / "data", program.base / "sockets"
    for directory in (data, sockets):
        directory.mkdir(mode=0o700)
        os.chown(directory, user.pw_uid, user.pw_gid)
    as_user = [need("setpriv"), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    run = [*as_user, initdb, "-D", str(data), "-A", "trust", "--no-sync"]
    subprocess.run(run, check=True, capture_output=True, timeout=120, cwd=program.base, env=program.environment())
    script = program.base / "session.sh"
    # One tree: a shell that runs the server and a client session that is fed through a FIFO.
    script.write_text(
        f"{server} -D {data} -k {sockets} -c listen_addresses= -c fsync=off -c dynamic_shared_memory_type=mmap &\n"
        f"mkfifo {sockets}/in\n"
        f"until {psql} -h {sockets} -c 'select 1' postgres >/dev/null 2>&1; do sleep 0.05; done\n"
        f"{psql} -h {sockets} -At postgres <{sockets}/in &\n"
        f"exec 3>{sockets}/in\n"
        "echo \"create temporary table t as select 41 as x; select 'ready' as r;\" >&3\n"
        f"while :; do if [ -e {sockets}/go ]; then rm {sockets}/go; echo \"select 'x is ' || x + 1 from t;\" >&3; fi;"
        " sleep 0.05; done\n"
    )
    program.dump_options = ("--file-locks",)
    program.restore_options = ("--file-locks",)
    # The server attaches a System V segment; those of the host's IPC namespace belong to everybody and are not carried.
    program.start([need("unshare"), "--ipc", *as_user, need("bash"), str(script)])
    program.wait_log("^ready$|\nready\n")
    program.sleep_and_wake()
    (sockets / "go").touch()
    program.wait_log("x is 42")
