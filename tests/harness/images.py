"""Container images for the end-to-end tests, made of Debian packages: no registry is asked.

One base system with all the servers in it, and on top of it layers of a few files, because an image store costs a
minute to make and a gigabyte to keep. Stores are kept below a cache directory by the content that they are made of; a
machine's Podman reads them as additional image stores, so nothing is copied.
"""

import shutil
import subprocess
from pathlib import Path

from harness.cache import made
from harness.machine import Machine, MachineError, need_commands
from harness.podman import configure
from harness.skips import missing

#: What the end-to-end tests need on the host: the command, and Debian's package.
HOST_COMMANDS = {
    "podman": "podman",
    "runc": "runc",
    "conmon": "conmon",
    "mmdebstrap": "mmdebstrap",
    "catatonit": "catatonit",
    "iptables": "iptables",
    "nft": "nftables",
}
#: What the base system has beyond Debian's essential packages.
PACKAGES = (
    "tomcat10",
    "default-jre-headless",
    "redis-server",
    "postgresql",
    "mariadb-server",
    "nginx-light",
    "nodejs",
    "memcached",
    "python3",
    "procps",
    "iproute2",
    "catatonit",
)
PROGRAMS = Path(__file__).parent.parent / "e2e" / "programs"
BASE = "localhost/debian-servers"
TOMCAT = "localhost/tomcat-hello"
APPLICATIONS = "localhost/applications"

_SUITE = "bookworm"
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/locale/*")
#: The whole Tomcat: what its service file says, without the service.
_TOMCAT_FILE = f"""\
FROM {BASE}
COPY WEB-INF /var/lib/tomcat10/webapps/helloworld/WEB-INF
ENV CATALINA_HOME=/usr/share/tomcat10 CATALINA_BASE=/var/lib/tomcat10 CATALINA_TMPDIR=/tmp JAVA_OPTS="-Xmx128m"
EXPOSE 8080
CMD ["/usr/libexec/tomcat10/tomcat-start.sh"]
"""
_APPLICATIONS_FILE = f"""\
FROM {BASE}
COPY apps /srv/apps
CMD ["/bin/sh"]
"""


def stores() -> list[Path]:
    """The image stores, made first where they are not there yet.  Skips if that cannot be done here."""
    need_commands(HOST_COMMANDS)
    recipe = f"{_SUITE} {PACKAGES} {_EXCLUDED}"
    base = made("base", recipe.encode(), _make_base)
    files = [path.read_bytes() for path in sorted(PROGRAMS.iterdir()) if path.is_file()]
    top = b"\0".join([recipe.encode(), _TOMCAT_FILE.encode(), _APPLICATIONS_FILE.encode(), *files])
    return [made("top", top, lambda work: _make_top(work, base)), base]


def _make_base(work: Path) -> Path:
    tree = work / "tree.tar"
    line = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    line += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
    line += ['--aptopt=Acquire::Languages "none"']
    made = subprocess.run([*line, _SUITE, tree], capture_output=True, text=True, timeout=1200, check=False)
    if made.returncode != 0:
        missing(f"Debian packages for a base system ({made.stderr.strip()[-500:]})")
    with Machine("builder", directory=work) as machine:
        configure(machine, [])
        machine.run("podman", "import", "--quiet", str(tree), BASE, timeout_s=600)
        return _taken(machine, work)


def _make_top(work: Path, base: Path) -> Path:
    with Machine("builder", directory=work) as machine:
        configure(machine, [base])
        context = machine.path("/tmp/context")
        _collect_tomcat(machine, context / "WEB-INF")
        _collect_applications(machine, context / "apps")
        for image, text in ((TOMCAT, _TOMCAT_FILE), (APPLICATIONS, _APPLICATIONS_FILE)):
            file = context / "Containerfile"
            file.write_text(text)
            machine.run(
                "podman", "build", "--quiet", "--tag", image, "-f", "/tmp/context/Containerfile", "/tmp/context"
            )
        return _taken(machine, work)


def _collect_tomcat(machine: Machine, target: Path) -> None:
    """The servlet, compiled against the API that is in the base image."""
    (target / "classes").mkdir(parents=True)
    shutil.copy(PROGRAMS / "web.xml", target)
    machine.run("podman", "create", "--name", "api", "--network", "none", BASE, "true")
    machine.run("podman", "cp", "api:/usr/share/java/tomcat10-servlet-api.jar", "/tmp/api.jar")
    machine.run("podman", "rm", "api")
    classes = "/tmp/context/WEB-INF/classes"
    shutil.copy(PROGRAMS / "HelloWorld.java", machine.path("/tmp/HelloWorld.java"))
    _compile(machine, "javac", "--release", "17", "-cp", "/tmp/api.jar", "-d", classes, "/tmp/HelloWorld.java")


def _collect_applications(machine: Machine, target: Path) -> None:
    target.mkdir()
    for path in PROGRAMS.iterdir():
        if path.is_file() and path.suffix not in (".java", ".xml"):
            shutil.copy(path, target)
    _compile(machine, "gcc", "-O1", "-Wall", "-static", "-o", "/tmp/context/apps/kinds", "/tmp/context/apps/kinds.c")
    go = ["env", "CGO_ENABLED=0", "GOCACHE=/tmp/go-cache", "GO111MODULE=off", "go", "build"]
    _compile(machine, *go, "-o", "/tmp/context/apps/counter", "/tmp/context/apps/counter.go")


def _compile(machine: Machine, *line: str) -> None:
    compiler = next(word for word in line if "=" not in word and word != "env")
    if machine.run("sh", "-c", f"command -v {compiler}", check=False).returncode != 0:
        missing(f"the compiler {compiler}")
    machine.run(*line, timeout_s=600)


def _taken(machine: Machine, work: Path) -> Path:
    """The machine's store, as it is when nothing of Podman's runs any more."""
    if machine.run("podman", "images", "--quiet").stdout.strip() == "":
        raise MachineError(["podman", "images"], 0, "there are none", "")
    store = machine.base / "containers" / "storage"
    return store.rename(work / "store")
