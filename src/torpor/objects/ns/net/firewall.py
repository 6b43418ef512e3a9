"""Packet filters of a network namespace: nftables, and the iptables of old.

Kernel view
    nftables by netlink (ruleset.py); whether there is anything else, ``/proc/net/ip_tables_names``, and what, the
    tools' own listings.
Image
    ``torpor-nft-%u.img``, and for others ``nftables-%u.img`` (``nft list ruleset``); ``iptables-%u.img`` and
    ``ip6tables-%u.img`` (``iptables-legacy-save``).
Restore
    nftables by netlink where the images have them so and the kernel takes them, else by ``nft``; the rest by the tools,
    all of them in the namespace.  A network lock that lies in the images stays until the network is let go.
Limits
    Filters of the iptables of old need their tools.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from torpor.base import log
from torpor.base.errors import KernelError, RefusedError, RestoreError
from torpor.base.ids import Pid
from torpor.base.typed import Literal
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.kinds import ImageKind
from torpor.images.store import ImageStore
from torpor.kernel.netlink import Netlink
from torpor.kernel.sockets import Socket
from torpor.kernel.uapi.netlink import NETLINK_NETFILTER
from torpor.objects.ns.net import ruleset
from torpor.tracee import caretaker
from torpor.tracee.caretaker import Step

_PATHS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin")

#: Image, the kernel's list of tables in use, names of the tools that save and restore.
_LEGACY: tuple[tuple[ImageKind[m.Message], str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        kinds.IPTABLES, "ip_tables_names", ("iptables-legacy-save", "iptables-save"),
        ("iptables-legacy-restore", "iptables-restore"),
    ),
    (
        kinds.IP6TABLES, "ip6_tables_names", ("ip6tables-legacy-save", "ip6tables-save"),
        ("ip6tables-legacy-restore", "ip6tables-restore"),
    ),
)  # fmt: skip


#: A letter, a name, or a negative number.
_OPTION = re.compile(r"-[A-LN-Za-z]|--[a-z0-9][a-z0-9-]*(=.*)?|-\d.*")
#: Options that have the tool run or read something, and how much of a name names none yet (``--mode`` is another).
_READING, _AMBIGUOUS = ("--modprobe", "--object-pinned"), 3

# -- dump ------------------------------------------------------------------------------------------------------------


def check(pid: Pid) -> None:
    """RefusedError where there are filters and no tools."""
    for _, names, savers, _ in _LEGACY:
        if _tables_in_use(names):
            _tool(pid, savers)


def dump(store: ImageStore, ident: int, pid: Pid) -> None:
    """Whatever filters there are; RefusedError where they cannot be read."""
    for kind, text in read_legacy(pid):
        store_text(store, kind, ident, text)
    messages = read_nft()
    if not messages:
        return
    if ruleset.can_be_replayed(messages):
        ruleset.dump(store, ident, messages)
        if _find(("nft",)) is None:
            log.warn("there is no nft to list the packet filters: only torpor can restore them")
            return
    store_text(store, kinds.NFTABLES, ident, _save(pid, ("nft",), ("list", "ruleset")))


def are_there(pid: Pid) -> bool:
    """Whether the thread's namespace, which is that of *pid*, has any, of either kind."""
    try:
        # Tables stay when all that was in them is gone.
        return any(has_rules(text) for _, text in read_legacy(pid)) or bool(read_nft())
    except RefusedError:
        return True


def read_legacy(pid: Pid) -> list[tuple[ImageKind[m.Message], bytes]]:
    """The listings of those of old; RefusedError where they cannot be read."""
    return [(kind, _save(pid, savers, ())) for kind, names, savers, _ in _LEGACY if _tables_in_use(names)]


def read_nft() -> list[tuple[int, bytes]]:
    """Those of nftables, as the kernel tells of them."""
    try:
        with Netlink(NETLINK_NETFILTER) as connection:
            return ruleset.read(connection)
    except (KernelError, OSError):
        return []  # a kernel without


def store_text(store: ImageStore, kind: ImageKind[m.Message], ident: int, text: bytes) -> None:
    """The image of a listing."""
    with store.open_write(kind.file_name(ident)) as stream:
        stream.write(text)


def _tables_in_use(names: str) -> bool:
    try:
        with open(f"/proc/thread-self/net/{names}", encoding="ascii") as stream:
            return bool(stream.read().strip())
    except OSError:
        return False  # a kernel without


def _tool(pid: Pid, tools: Sequence[str]) -> str:
    tool = _find(tools)
    if tool is None:
        raise RefusedError(
            f"the network namespace of pid {pid} has packet filters, and there is no {tools[0]} to read them with",
            hint=f"install {tools[0]}",
        )
    return tool


def _save(pid: Pid, tools: Sequence[str], words: Sequence[str]) -> bytes:
    tool = _tool(pid, tools)
    status, text, errors = _run([tool, *words], b"")
    if status:
        raise RefusedError(f"{tool} cannot read the packet filters of pid {pid}'s network namespace: {errors}")
    return text


def _find(tools: Sequence[str]) -> str | None:
    for tool in tools:
        for directory in (*os.environ.get("PATH", "").split(":"), *_PATHS):
            path = f"{directory}/{tool}"
            if directory and os.access(path, os.X_OK):
                return path
    return None


def _run(command: list[str], data: bytes) -> tuple[int, bytes, str]:
    """Run a tool in this thread's namespace: exit code, output, and what it complained of, on one line."""
    given, out, err = (os.memfd_create(name) for name in ("stdin", "stdout", "stderr"))
    try:
        os.write(given, data)
        os.lseek(given, 0, os.SEEK_SET)
        actions: list[tuple[Literal[2], int, int]] = [
            (os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((given, out, err))
        ]
        child = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [os.pread(fd, os.fstat(fd).st_size, 0) for fd in (out, err)]
    finally:
        for fd in (given, out, err):
            os.close(fd)
    return status, texts[0], " ".join(texts[1].decode(errors="replace").split())


# -- restore ---------------------------------------------------------------------------------------------------------


def restore(store: ImageStore, ident: int) -> None:
    """All of them; RestoreError where there is no tool, or it does not like them."""
    for kind, _, _, restorers in _LEGACY:
        text = _load(store, kind, ident)
        if text:
            check_iptables(text)
            _give(restorers, ("-w",), text)
    text = _load(store, kinds.NFTABLES, ident)
    try:
        if ruleset.restore(store, ident):
            return
    except KernelError as error:
        if not text:
            raise RestoreError(f"the kernel does not take the nftables of the images: {error}") from error
        log.warn(f"nftables are restored from their listing: {error}")
    if text:
        check_nft(text)
        _give(("nft",), ("-f", "-"), text)


def steps_back(store: ImageStore, ident: int, netns: int, connection: Socket) -> list[Step]:
    """What of a caretaker takes away again, in the namespace *netns*, what ``restore`` makes in it.

    *connection* is a socket of it for nftables.
    """
    steps = ruleset.steps_back(store, ident, connection)
    for kind, _, _, restorers in _LEGACY:
        text, tool = _load(store, kind, ident), _find(restorers)
        if text and tool is not None:
            steps.append(caretaker.run(netns, [tool, "-w"], emptied(text)))
    return steps


def has_rules(text: bytes) -> bool:
    """Whether anything is in the tables of a listing, or they do not let everything pass."""
    lines = text.decode(errors="surrogateescape").splitlines()
    return any(not re.match(r"[#*]|COMMIT|:\S+ ACCEPT|$", line) for line in lines)


def emptied(text: bytes) -> bytes:
    """A listing by which the tables of the listing *text* have no rules, and let everything pass."""
    lines = []
    for line in text.decode(errors="surrogateescape").splitlines():
        if line[:1] == "*" or line == "COMMIT":
            lines.append(line)
        elif line[:1] == ":" and line.split()[1:2] != ["-"]:
            lines.append(f"{line.split()[0]} ACCEPT [0:0]")
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")


def _load(store: ImageStore, kind: ImageKind[m.Message], ident: int) -> bytes:
    name = kind.file_name(ident)
    if not store.exists(name):
        return b""
    with store.open_read(name) as stream:
        return stream.read()


def check_iptables(text: bytes) -> None:
    """ImageError for what no listing has: a line that is none, an option by which the tool runs or reads anything.

    The tool is run by us, and its options may be shortened: ``--modprobe`` names a program, ``--object-pinned`` a file.
    """
    for line in text.decode(errors="surrogateescape").splitlines():
        if line[:1] in ("", "#", "*", ":") or line == "COMMIT":
            continue
        words = re.sub(r"^\[\d+:\d+\] ", "", line).split()
        if words[:1] not in (["-A"], ["-I"], ["-N"], ["-P"]):
            raise ImageError(f"iptables image: {line!r} is no rule")
        for word in (word.lstrip("\"'") for word in words[1:]):
            name = word.partition("=")[0]
            reads = len(name) > _AMBIGUOUS and any(full.startswith(name) for full in _READING)
            if reads or (word.startswith("-") and not _OPTION.fullmatch(word)):
                raise ImageError(f"iptables image: {word!r} is no option of a rule that is restored")


def check_nft(text: bytes) -> None:
    """ImageError for a listing that has the tool read other files."""
    for number, line in enumerate(text.decode(errors="surrogateescape").splitlines(), 1):
        if re.search(r"(^|[;{}\s])include\s*[\"']", line):
            raise ImageError(f"nftables image: line {number} includes another file")


def _give(tools: Sequence[str], words: Sequence[str], text: bytes) -> None:
    tool = _find(tools)
    if tool is None:
        raise RestoreError(
            f"the images have packet filters, and there is no {tools[0]} to make them with", hint=f"install {tools[0]}"
        )
    status, _, errors = _run([tool, *words], text)
    if status:
        raise RestoreError(f"{tool} does not take the packet filters of the images: {errors}")
    log.debug(f"packet filters restored by {tool}")
