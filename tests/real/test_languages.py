"""Programs of other run-times: Java, Go."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from harness.program import Program, need

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go counter, built."""
    target = tmp_path_factory.mktemp("go") / "counter"
    env = {**os.environ, "GOCACHE": str(target.parent / "cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    line = [need("go"), "build", "-o", str(target), str(PROGRAMS / "counter.go")]
    subprocess.run(line, check=True, env=env, timeout=600)
    target.parent.chmod(0o755)
    return target


@pytest.fixture(scope="session")
def java_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Java program, compiled."""
    target = tmp_path_factory.mktemp("java")
    subprocess.run([need("javac"), "-d", str(target), str(PROGRAMS / "Threads.java")], check=True, timeout=600)
    return target


def test_go_program(program: Program, go_program: Path) -> None:
    """Eight goroutines count and check; the answers go on where they were."""
    path = program.base / "sock"
    program.start([str(go_program), str(path)])
    program.wait_log("ready")
    first = [ask(path) for _ in range(2)]
    program.sleep_and_wake()
    second = [ask(path) for _ in range(2)]
    assert [answer[0] for answer in first + second] == [0, 1, 2, 3]
    assert all(answer[1] == 0 for answer in first + second), "a goroutine saw a wrong value"
    assert second[0][2] >= first[1][2]


def ask(path: Path) -> list[int]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        data = b""
        while part := sock.recv(100):
            data += part
    return [int(word) for word in data.split()]


def test_java_with_50_threads(program: Program, java_classes: Path) -> None:
    """All threads go on and none saw a wrong value."""
    program.start([need("java"), "-Xmx128m", "-cp", str(java_classes), "Threads", str(program.base)])
    program.wait_log("ready")
    (program.base / "ask").touch()
    program.wait_log("answer 0 bad 0 moving true")
    program.sleep_and_wake()
    (program.base / "ask").touch()
    program.wait_log("answer 1 bad 0 moving true")
