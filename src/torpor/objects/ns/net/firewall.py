"""Packet filters of a network namespace: nftables, and the iptables of old.

Kernel view
    Whether there is anything: NFT_MSG_GETTABLE, ``/proc/net/ip_tables_names``.  What: the tools' own listings.
Image
    ``nftables-%u.img`` (``nft list ruleset``), ``iptables-%u.img`` and ``ip6tables-%u.img`` (``iptables-legacy-save``).
Restore
    By the same tools, in the namespace.  What an engine's network lock left in the images is taken away.
Limits
    Without the tools a namespace with filters is refused.  Rules that iptables-nft made with matches that ``nft`` does
    not know are refused as well: what it prints of them could not be read back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from torpor.base import log
from torpor.base.errors import KernelError, RefusedError, RestoreError
from torpor.base.typed import Literal
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.kinds import ImageKind
from torpor.images.store import ImageStore
from torpor.kernel import netlink

_SUBSYS_NFTABLES, _NFT_MSG_GETTABLE = 10, 1
_NFTA_TABLE_NAME = 1
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
#: Tables and chains by which CRIU keeps packets away while it works; they may lie in its images.
LOCK_TABLE, LOCK_CHAIN = "CRIU", "CRIU"


# -- dump ------------------------------------------------------------------------------------------------------------


def check(pid: int) -> None:
    """RefusedError where there are filters and no tools."""
    for _, names, savers, _ in _LEGACY:
        if _tables_in_use(names):
            _tool(pid, savers)
    if _has_nftables():
        _tool(pid, ("nft",))


def dump(store: ImageStore, ident: int, pid: int) -> None:
    """Whatever filters there are; RefusedError where they cannot be read."""
    for kind, names, savers, _ in _LEGACY:
        if _tables_in_use(names):
            _store(store, kind, ident, _save(pid, savers, ()))
    if _has_nftables():
        text = _save(pid, ("nft",), ("list", "ruleset"))
        _check_readable(text, pid)
        _store(store, kinds.NFTABLES, ident, text)


def _store(store: ImageStore, kind: ImageKind[m.Message], ident: int, text: bytes) -> None:
    with store.open_write(kind.file_name(ident)) as stream:
        stream.write(text)


def _tables_in_use(names: str) -> bool:
    try:
        with open(f"/proc/thread-self/net/{names}", encoding="ascii") as stream:
            return bool(stream.read().strip())
    except OSError:
        return False  # a kernel without


def _has_nftables() -> bool:
    """Whether there is a table other than a lock's."""
    kind = _SUBSYS_NFTABLES << 8 | _NFT_MSG_GETTABLE
    try:
        tables = netlink.dump(netlink.NETLINK_NETFILTER, kind, bytes(4))
    except (KernelError, OSError):
        return False  # a kernel without
    names = [netlink.parse_attributes(table[4:]).get(_NFTA_TABLE_NAME, b"") for table in tables]
    return any(not _is_lock(name.rstrip(b"\0").decode(errors="replace")) for name in names)


def _is_lock(table: str) -> bool:
    # Named of a pid, or of some digits of the dump's id.
    name = table[len(LOCK_TABLE) + 1 :]
    is_id = len(name) >= 20 and set(name) <= set("0123456789abcdef-")
    return table.startswith(f"{LOCK_TABLE}-") and (name.isdigit() or is_id)


def _tool(pid: int, tools: Sequence[str]) -> str:
    tool = _find(tools)
    if tool is None:
        raise RefusedError(
            f"the network namespace of pid {pid} has packet filters, and there is no {tools[0]} to read them with",
            hint=f"install {tools[0]}",
        )
    return tool


def _save(pid: int, tools: Sequence[str], words: Sequence[str]) -> bytes:
    tool = _tool(pid, tools)
    status, text, errors = _run([tool, *words], b"")
    if status:
        raise RefusedError(f"{tool} cannot read the packet filters of pid {pid}'s network namespace: {errors}")
    return text


def _check_readable(text: bytes, pid: int) -> None:
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [b"xt"] or (b"xt" in words and (b"match" in words or b"target" in words)):
            raise RefusedError(
                f"the network namespace of pid {pid} has a rule that nft cannot print: {line.decode(errors='replace')}",
                hint="make it by nft, or by iptables-legacy",
            )


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
            _give(restorers, ("-w",), _without_lock_chain(text))
    text = _load(store, kinds.NFTABLES, ident)
    if text:
        _give(("nft",), ("-f", "-"), text)
        _remove_lock_tables()


def _load(store: ImageStore, kind: ImageKind[m.Message], ident: int) -> bytes:
    name = kind.file_name(ident)
    if not store.exists(name):
        return b""
    with store.open_read(name) as stream:
        return stream.read()


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


def _without_lock_chain(text: bytes) -> bytes:
    chain = LOCK_CHAIN.encode()
    return b"".join(
        line
        for line in text.splitlines(keepends=True)
        if not (line.startswith(b":" + chain + b" ") or chain in line.split())
    )


def _remove_lock_tables() -> None:
    kind = _SUBSYS_NFTABLES << 8 | _NFT_MSG_GETTABLE
    for table in netlink.dump(netlink.NETLINK_NETFILTER, kind, bytes(4)):
        name = netlink.parse_attributes(table[4:]).get(_NFTA_TABLE_NAME, b"").rstrip(b"\0").decode(errors="replace")
        if _is_lock(name):
            _give(("nft",), ("-f", "-"), f"delete table inet {name}\n".encode())
