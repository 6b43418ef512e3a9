"""Servers that keep their state in memory."""

import subprocess
from pathlib import Path

from harness.events import time_limit_s
from harness.peers import free_port
from harness.program import Program, need
from real.ports import get, is_refused

PROGRAMS = Path(__file__).parent / "programs"


def test_python_http_server(program: Program) -> None:
    """A counter behind http.server goes on counting."""
    port = free_port()
    program.start([need("python3"), str(PROGRAMS / "counter_server.py"), str(port)])
    program.wait_log("ready")
    assert [get(port), get(port)] == ["0", "1"]
    program.checkpoint()
    assert program.is_control or is_refused(port)
    program.restore()
    assert [get(port), get(port)] == ["2", "3"]


def test_redis(program: Program) -> None:
    """Keys that were never saved are there."""
    port = free_port()
    program.start([need("redis-server"), "--port", str(port), "--save", "", "--appendonly", "no", "--dir", "."])
    program.wait_log("Ready to accept connections")
    for number in range(100):
        redis(port, "SET", f"key{number}", f"value{number}")
    redis(port, "LPUSH", "list", "a", "b", "c")
    program.checkpoint()
    assert program.is_control or is_refused(port)
    program.restore()
    assert redis(port, "DBSIZE") == "101"
    assert [redis(port, "GET", f"key{number}") for number in (0, 42, 99)] == ["value0", "value42", "value99"]
    assert redis(port, "LRANGE", "list", "0", "-1").split() == ["c", "b", "a"]
    redis(port, "SET", "new", "1")
    assert redis(port, "GET", "new") == "1"


def redis(port: int, *words: str) -> str:
    line = [need("redis-cli"), "-p", str(port), *words]
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=time_limit_s(30)).stdout.strip()


NGINX_CONF = """
worker_processes 2;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    limit_req_zone $binary_remote_addr zone=calls:64k rate=1r/m;
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 200 "hello from $pid"; }}
        location /once {{ limit_req zone=calls; limit_req_status 429; root {base}; }}
    }}
}}
"""


def test_nginx_with_workers(program: Program) -> None:
    """Master and workers; the rate limit in their shared memory still knows the request before."""
    port = free_port()
    (program.base / "nginx.conf").write_text(NGINX_CONF.format(port=port, base=program.base))
    (program.base / "once").write_text("fresh")
    command = [need("nginx"), "-p", str(program.base), "-c", str(program.base / "nginx.conf"), "-g", "daemon off;"]
    program.start(command)
    program.wait_log("start worker process \\d+", count=2)
    before = get(port)
    assert before.startswith("hello from ")
    get(port, "/once")
    assert "429" in get(port, "/once")
    program.checkpoint()
    assert program.is_control or is_refused(port)
    program.restore()
    assert get(port).startswith("hello from ")
    assert "429" in get(port, "/once")


def test_node_with_timers(program: Program) -> None:
    """Timers go on ticking and the server knows how often they did."""
    port = free_port()
    script = program.base / "timers.js"
    script.write_text(
        "let ticks = 0, asked = 0; setInterval(() => { ticks++ }, 5);\n"
        "require('http').createServer((q, s) => { const t = ticks;\n"
        "  setTimeout(() => s.end(`${asked++} ${ticks > t}`), 50) })\n"
        f".listen({port}, '127.0.0.1', () => console.log('ready'));\n"
    )
    program.start([need("node", "nodejs"), str(script)])
    program.wait_log("ready")
    assert [get(port), get(port)] == ["0 true", "1 true"]
    program.checkpoint()
    assert program.is_control or is_refused(port)
    program.restore()
    assert [get(port), get(port)] == ["2 true", "3 true"]
