"""``make demo``: a web server that counts in memory is put to sleep, woken, and copied.  Needs root, and nothing else.

The server is an ordinary program that knows nothing of torpor.  Nothing is faked: what is printed is what happened.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

SERVER = """\
from http.server import BaseHTTPRequestHandler, HTTPServer
import sys

class Counter(BaseHTTPRequestHandler):
    count = 0

    def do_GET(self):
        body = f"{Counter.count}\\n".encode()
        Counter.count += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(sys.argv[1])), Counter).serve_forever()
"""
_NAME = "demo"
_COPY = "demo-copy"


def main() -> int:
    """Run the demonstration; 0 if everything happened as it should."""
    if os.geteuid() != 0:
        print("the demo needs root: jobs have namespaces of their own", file=sys.stderr)
        return 1
    state = tempfile.mkdtemp(prefix="torpor-demo-")
    os.environ["TORPOR_STATE"] = state
    try:
        return _Demo(Path(state)).run()
    finally:
        _clean_up()
        shutil.rmtree(state, ignore_errors=True)


def _clean_up() -> None:
    import signal

    from torpor.engine import jobs

    for job in jobs.list_jobs():
        if job.status == jobs.RUNNING:
            jobs.kill(job, signal.SIGKILL)


class _Demo:
    def __init__(self, state: Path) -> None:
        self._program = state / "counter.py"
        self._port = _free_port()
        self._right = True

    def run(self) -> int:
        import torpor
        from torpor.engine import jobs

        self._program.write_text(SERVER, encoding="utf-8")
        command = [sys.executable, str(self._program), str(self._port)]
        print(f"torpor run -d --name {_NAME} -- python3 counter.py {self._port}")
        job = jobs.start(command, _NAME, environment={"PATH": os.environ.get("PATH", os.defpath)}, directory="/")
        print(f"  a web server in namespaces of its own: pid 1 in there, pid {job.pid} out here")
        _wait_listening(job, self._port)
        self._ask("GET /", job, "0")
        self._ask("GET /", job, "1")

        print(f"\ntorpor checkpoint {_NAME}")
        started = time.perf_counter()
        made = jobs.checkpoint(job, lambda path, notes, commit: torpor.dump(job.pid, path, notes=notes, commit=commit))
        took = time.perf_counter() - started
        size = sum(path.stat().st_size for path in made.place.iterdir())
        frozen = made.stats.watch.us.get("frozen", 0) / 1000 if made.stats is not None else 0
        print(
            f"  asleep in {size / 1e6:.1f} MB of files after {took * 1000:.0f} ms, of which it was frozen {frozen:.0f}"
        )
        self._ask("GET /", None, "connection refused")

        print(f"\ntorpor restore {_NAME}")
        started = time.perf_counter()
        about = jobs.generations.find(_NAME).note
        job = jobs.wake(
            made.place, about, lambda path, renames, notify: torpor.restore(path, renames=renames, notify=notify)
        )
        print(f"  awake after {(time.perf_counter() - started) * 1000:.0f} ms, pid 1 in there, pid {job.pid} out here")
        self._ask("GET /", job, "2")
        self._ask("GET /", job, "3")

        print(f"\ntorpor restore {_NAME} --name {_COPY}")
        started = time.perf_counter()
        copy = jobs.wake(
            made.place,
            about,
            lambda path, renames, notify: torpor.restore(path, renames=renames, notify=notify, new_network=True),
            name=_COPY,
        )
        took = time.perf_counter() - started
        print(
            f"  a second one beside it after {took * 1000:.0f} ms: pid {copy.pid}, the same port, a network of its own"
        )
        self._ask("GET / of the copy", copy, "2")
        self._ask("GET / of the copy", copy, "3")
        self._ask("GET / of the copy", copy, "4")
        self._ask("GET / of the first", job, "4")

        print("\nBoth went on from the same state." if self._right else "\nThis is not what should have happened.")
        return 0 if self._right else 1

    def _ask(self, what: str, job: object, expected: str) -> None:
        """Ask the server of *job* (in its network namespace) and print the answer beside the question."""
        from torpor.engine.jobs import Job

        answer = _get_inside(job, self._port) if isinstance(job, Job) else _get(self._port)
        right = answer == expected
        self._right = self._right and right
        print(f"  {what:<20} -> {answer}{'' if right else f'   (expected: {expected})'}")


def _get_inside(job: object, port: int) -> str:
    from torpor.base.fds import OwnedFd
    from torpor.engine.jobs import Job
    from torpor.kernel.namespaces import CLONE_NEWNET, inside

    assert isinstance(job, Job)
    with OwnedFd(os.pidfd_open(job.pid)) as pidfd:
        return inside(pidfd.fileno(), CLONE_NEWNET, lambda: _get(port))


def _get(port: int) -> str:
    """What ``GET /`` answers, or why there is no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            received = b""
            while part := connection.recv(4096):
                received += part
    except ConnectionRefusedError:
        return "connection refused"
    except OSError as error:
        return str(error)
    return received.partition(b"\r\n\r\n")[2].decode(errors="replace").strip()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_listening(job: object, port: int) -> None:
    """Until the port is listened on; without asking the server, which counts what it is asked."""
    from torpor.base.errors import JobError
    from torpor.engine import jobs

    assert isinstance(job, jobs.Job)
    wanted = f":{port:04X} 00000000:0000 0A"
    deadline = time.monotonic() + 30
    while wanted not in Path("/proc/net/tcp").read_text(encoding="ascii"):
        if jobs.find(job.name).status != jobs.RUNNING or time.monotonic() > deadline:
            log = b"".join(jobs.follow_log(job)).decode(errors="replace")
            raise JobError(f"the server does not listen: {log}")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
