"""A pool of processes behind an HTTP server: each answer has been through all of them, and none has been replaced."""

import multiprocessing
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

N_WORKERS = 3


class Worker:
    """What only a worker's own memory holds."""

    calls = 0
    barrier: "threading.Barrier"


def work(number: int) -> tuple[int, int, int]:
    """What a worker does: count, and wait for the others."""
    Worker.calls += 1
    Worker.barrier.wait(30)
    return os.getpid(), Worker.calls, number * number


def prepare(barrier: "threading.Barrier") -> None:
    Worker.barrier = barrier


class Counter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = pool.map(work, range(N_WORKERS), chunksize=1)
        pids.update(pid for pid, _, _ in answers)
        counts = {count for _, count, _ in answers}
        right = len(pids) == N_WORKERS and len(counts) == 1 and sum(square for *_, square in answers) == 5
        body = f"{counts.pop() - 1 if right else f'wrong: {answers}, {pids}'}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    pids: set[int] = set()
    pool = multiprocessing.Pool(N_WORKERS, prepare, (multiprocessing.Barrier(N_WORKERS),))
    HTTPServer(("", 8080), Counter).serve_forever()
