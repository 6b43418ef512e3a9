"""The network lock: packets of connections that are carried are held back while nobody, or the wrong one, is there.

Kernel view
    nftables by netlink, or ``iptables-restore``.
Image
    ``inventory_entry.network_lock_method`` and ``dump_criu_run_id``, of which the table is named.
Restore
    What the dump locked is unlocked, in CRIU's form and under its names, so that either engine unlocks what the other
    has locked.  Where nothing is locked any more (another machine, a new namespace) it is locked until all are there:
    a packet for a connection that does not exist yet would be answered by a reset.
Limits
    In a network namespace of the tree's own everything is held back, as CRIU does; elsewhere only the connections.
    While the tree is still at what came before the lock, or the kernel delivers what it has sent, it keeps out no more
    than new connections.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
from collections.abc import Callable, Iterable, Sequence

from torpor.base import log
from torpor.base.errors import KernelError, RefusedError
from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass
from torpor.base.typed import TypeVar
from torpor.images import messages as m
from torpor.kernel import nftables
from torpor.kernel.namespaces import CLONE_NEWNET, isolated, setns
from torpor.kernel.sockets import Socket
from torpor.objects.files.networks import Networks
from torpor.objects.files.socket.addresses import plain_bytes
from torpor.objects.outside import Lasting
from torpor.objects.session import DumpContext, DumpStage
from torpor.tracee import caretaker

#: Packets with this mark pass the lock: it is CRIU's, and we send those with it that we make in a peer's name.
MARK = 0xC114
IPTABLES, NFTABLES, SKIP = 0, 1, 2
METHODS = {"": NFTABLES, "nftables": NFTABLES, "iptables": IPTABLES, "skip": SKIP}
_CHAINS = (("output", nftables.LOCAL_OUT), ("input", nftables.LOCAL_IN))
_ARP_CHAINS = (("output", nftables.ARP_OUT), ("input", nftables.ARP_IN))
_SETS = (("conns4", nftables.NFPROTO_IPV4, 4), ("conns6", nftables.NFPROTO_IPV6, 16))
#: A text of more bytes is not left to a caretaker: a message to it is one packet, and limited.
_ROOM = 60_000
_HINT = "iptables, or a kernel with nftables; --network-lock skip goes without, if nothing can reach the connections"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a connection: packed addresses (4 or 16 bytes) and ports."""

    here: bytes
    port: int
    there: bytes
    peer_port: int

    @property
    def reversed(self) -> Ends:
        """As the peer sees it."""
        return Ends(self.there, self.peer_port, self.here, self.port)


def ends_of(sk: m.inet_sk_entry) -> Ends:
    """The ends of a connection as the image has it; IPv4 in IPv6's clothes is IPv4."""
    return Ends(plain_bytes(sk.src_addr), sk.src_port, plain_bytes(sk.dst_addr), sk.dst_port)


def _table_names(run_id: str) -> list[str]:
    """The nftables tables that the dump *run_id* may have made.

    CRIU 4.2 has room for 31 characters, of which a UUID needs more.
    """
    return list(dict.fromkeys((f"CRIU-{run_id}", f"inet CRIU-{run_id}"[:31].removeprefix("inet "))))


def table_of(run_id: str) -> str:
    """The table that a dump of ours makes."""
    return _table_names(run_id)[-1]


def check(method: str) -> None:
    """RefusedError where neither nftables nor iptables can be had."""
    if METHODS[method] == NFTABLES and _has_nftables():
        return
    if METHODS[method] == SKIP or (method != "nftables" and find_program("iptables-restore")):
        return
    raise RefusedError("TCP connections need their packets held back, and nothing here can do that", hint=_HINT)


def _has_nftables() -> bool:
    try:
        with nftables.open_socket() as connection:
            nftables.has_table(connection, "none")
    except (OSError, KernelError):
        return False
    return True


def find_program(name: str) -> str | None:
    """The path of a program, as execvp(3) would find it or where administrators have theirs."""
    # Not os.get_exec_path(), which imports a module: the tree may be stopped.
    for directory in (*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin", "/sbin"):
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    return None


# -- locking --------------------------------------------------------------------------------------------------


class NetLock:
    """What one dump or restore has locked.  *run_id* names it."""

    def __init__(self, run_id: str, method: str) -> None:
        self._table = table_of(run_id)
        self._wanted = method
        #: Whether a namespace that is locked as a whole answers no ARP either, and stays locked as long as it is there
        #: (``NetworkPolicy.holds_all``).
        self._holds_all = False
        self._locked: list[_Locked] = []
        #: How it was locked, for the image: NFTABLES, IPTABLES or SKIP.
        self.method = SKIP

    @property
    def is_locked(self) -> bool:
        """Whether this lock holds back any packets now."""
        return bool(self._locked)

    def lock(
        self,
        netns: OwnedFd,
        ends: Iterable[Ends] | None,
        keeper: Callable[[], caretaker.Caretaker],
        *,
        is_ajar: bool = False,
    ) -> None:
        """Hold back the packets of *ends*, or (None) all, in the namespace *netns*, which is ours to close.

        One that *is_ajar* lets through all but new connections from outside, until ``shut``.  The caretaker that
        *keeper* gives learns of it first.  RefusedError where neither way works.
        """
        if METHODS[self._wanted] == SKIP:
            netns.close()
            return
        known = None if ends is None else list(ends)
        if METHODS[self._wanted] == NFTABLES:
            try:
                return self._lock_nftables(netns, known, keeper(), is_ajar)
            except (OSError, KernelError) as error:
                if self._wanted or not find_program("iptables-restore"):
                    raise RefusedError(f"packets cannot be held back by nftables: {error}", hint=_HINT) from error
                log.debug(f"no nftables, iptables then: {error}")
        self._lock_iptables(netns, known, keeper(), is_ajar)

    def _lock_nftables(
        self, netns: OwnedFd, ends: list[Ends] | None, keeper: caretaker.Caretaker, is_ajar: bool
    ) -> None:
        connection = in_netns(netns.fileno(), nftables.open_socket)
        undo = nftables.batch([nftables.delete_table(self._table)])
        if ends is None and self._holds_all:
            undo = nftables.batch(let_all_through(self._table))
        locked = _Locked(netns, connection, keeper, [caretaker.send(connection.fileno(), undo)], ends is None)
        try:
            messages = _table_messages(self._table, ends, is_ajar=is_ajar)
            if ends is None and self._holds_all:
                messages = hold_all(self._table, is_ajar=is_ajar)
            nftables.commit(connection, messages)
        except BaseException:
            locked.forget()
            raise
        self.method = NFTABLES
        self._locked.append(locked)

    def _lock_iptables(
        self, netns: OwnedFd, ends: list[Ends] | None, keeper: caretaker.Caretaker, is_ajar: bool
    ) -> None:
        undo = [
            caretaker.run(netns.fileno(), argv, text)
            for texts in _iptables_texts(ends, lock=False)
            for argv, text in _iptables_commands(texts)
        ]
        locked = _Locked(netns, None, keeper, undo, ends is None)
        self.method = IPTABLES
        self._locked.append(locked)
        for texts in _iptables_texts(ends, lock=True, is_ajar=is_ajar):
            _feed(netns, texts)

    def shut(self, *, is_ajar: bool = False) -> None:
        """What is locked as a whole holds back all packets from now on, or is left ajar again."""
        for locked in self._locked:
            if locked.is_whole and locked.connection is not None:
                nftables.commit(locked.connection, _policies(self._table, self._holds_all, is_ajar))
            elif locked.is_whole:
                _feed(locked.netns, {n: _iptables_chain(is_ajar) for n in (4, 16)})

    def let_through(self) -> None:
        """Undo it all; ``close`` is still to come."""
        for locked in self._locked:
            locked.undo()

    def close(self) -> None:
        """Close what it was done by, for which the kernel takes some 10 ms (nftables: a grace period of RCU)."""
        while self._locked:
            self._locked.pop().forget()

    @property
    def keys(self) -> list[int]:
        """What the caretaker knows it by."""
        return [key for locked in self._locked for key in locked.keys]

    @property
    def steps(self) -> list[caretaker.Step]:
        """What undoes it all."""
        return [step for locked in self._locked for step in locked.steps]


class DumpLock(NetLock, Lasting):
    """The lock of a dump: undone when the tree lives on, left for the restore when it is killed."""

    def __init__(self, context: DumpContext) -> None:
        super().__init__(context.outside.run_id, context.policies.network.network_lock)
        self._holds_all = context.policies.network.holds_all
        self._context = context
        self._outside = context.outside
        self._is_kept = any(item.startswith("net[") for item in context.policies.external)
        #: By network namespace: the connections that are carried and whose other end is outside of the tree.
        self.carried: dict[int, list[Ends]] = {}
        context.undo.add(self._survive)
        context.outside.add(self)

    @property
    def _home(self) -> int:
        """The number of the root's namespace; it may be locked before that has one."""
        processes = self._context.processes
        return processes[0].ids.net_ns_id if processes else 0

    def lock_namespace(self, netns: int, *, is_ajar: bool) -> None:
        """All packets in a namespace of the tree's own, behind *netns* (a pidfd will do), which is ours to close."""
        self.lock(OwnedFd(netns), None, lambda: self._outside.caretaker, is_ajar=is_ajar)
        self._outside.lock_method = self.method

    def lock_connections(self) -> None:
        """Those that are carried, where not everything is locked."""
        networks = self._context.part(Networks)
        is_home_locked = self.is_locked
        for ident, ends in self.carried.items():
            if ident == self._home and is_home_locked:
                continue
            netns = OwnedFd(networks.inside(ident, _open_own))
            self.lock(netns, ends, lambda: self._outside.caretaker)
            self._outside.lock_method = self.method

    def _survive(self) -> None:
        self._context.at(DumpStage.CLOSED, self.close)
        self.let_through()

    def settle(self) -> None:
        """It stays locked until a restore unlocks it.

        In a namespace that others keep, and may go on using (a pod's), only the connections: all of it was locked for
        what asked to be let in, and there is nobody any more to ask.
        """
        try:
            for connection, messages in self._last_messages():
                nftables.commit(connection, messages)
        finally:
            while self._locked:
                self._locked.pop().forget()

    def last_steps(self) -> list[caretaker.Step]:
        """The same by a caretaker, unless that has no room for it."""
        found = [(connection.fileno(), nftables.batch(messages)) for connection, messages in self._last_messages()]
        return [caretaker.send(fd, text) for fd, text in found if len(text) <= _ROOM]

    def _last_messages(self) -> list[tuple[Socket, list[bytes]]]:
        if not self._is_kept or self._holds_all or not self._locked or not self._locked[0].is_whole:
            return []
        home = self._locked[0].connection
        if home is None:
            return []
        ends = self.carried.get(self._home)
        messages = _table_messages(self._table, ends) if ends else []
        return [(home, [nftables.delete_table(self._table), *messages])]


def _open_own() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class _Locked:
    """One namespace in which something is locked."""

    def __init__(
        self,
        netns: OwnedFd,
        connection: Socket | None,
        keeper: caretaker.Caretaker,
        steps: list[caretaker.Step],
        is_whole: bool,
    ) -> None:
        self.is_whole = is_whole
        self.netns, self.connection, self._keeper, self.steps = netns, connection, keeper, steps
        self.keys = keeper.add(steps)

    def undo(self) -> None:
        """Unlock; twice is harmless."""
        for step in self.steps:
            caretaker.do(step)

    def forget(self) -> None:
        """Nobody unlocks it from now on."""
        self._keeper.drop(self.keys)
        if self.connection is not None:
            self.connection.close()
        self.netns.close()


def in_netns(netns: int, work: Callable[[], T]) -> T:
    """Do *work* in the network namespace behind the descriptor *netns*."""

    def enter() -> T:
        setns(netns, CLONE_NEWNET)
        return work()

    return isolated(enter)


def _table_messages(table: str, ends: Sequence[Ends] | None, *, is_ajar: bool = False) -> list[bytes]:
    policy = nftables.DROP if ends is None and not is_ajar else nftables.ACCEPT
    messages = [nftables.new_table(table)]
    for chain, hook in _CHAINS:
        messages += [nftables.new_chain(table, chain, hook, policy), nftables.accept_mark(table, chain, MARK)]
    if ends is None:
        return [*messages, nftables.drop_new_connections(table, "input")]  # of use while it is ajar
    for ident, (name, family, length) in enumerate(_SETS):
        messages.append(nftables.new_set(table, name, family, ident + 1))
        messages += [nftables.drop_connections(table, chain, name, family) for chain, _ in _CHAINS]
        keys = {key for each in ends if len(each.here) == length for key in _both_ways(each)}
        # In several messages, for one attribute of netlink holds at most 64 KiB.
        ordered = sorted(keys)
        messages += [nftables.new_elements(table, name, ordered[at : at + 1000]) for at in range(0, len(ordered), 1000)]
    return messages


def hold_all(table: str, *, is_ajar: bool = False) -> list[bytes]:
    """The nftables messages that hold back all packets of a network namespace, those of ARP included.

    So nobody learns where its addresses are either.  One that *is_ajar* keeps out new connections alone.
    """
    policy = nftables.ACCEPT if is_ajar else nftables.DROP
    messages = [*_table_messages(table, None, is_ajar=is_ajar), nftables.new_table(table, nftables.NFPROTO_ARP)]
    for chain, hook in _ARP_CHAINS:
        messages.append(nftables.new_chain(table, chain, hook, policy, nftables.NFPROTO_ARP))
    return messages


def _policies(table: str, holds_all: bool, is_ajar: bool) -> list[bytes]:
    policy = nftables.ACCEPT if is_ajar else nftables.DROP
    arp = [nftables.set_policy(table, chain, policy, nftables.NFPROTO_ARP) for chain, _ in _ARP_CHAINS]
    return [*(nftables.set_policy(table, chain, policy) for chain, _ in _CHAINS), *(arp if holds_all else ())]


def let_all_through(table: str) -> list[bytes]:
    """The messages that undo those of ``hold_all``."""
    return [nftables.delete_table(table), nftables.delete_table(table, nftables.NFPROTO_ARP)]


def _both_ways(ends: Ends) -> tuple[bytes, bytes]:
    return (
        nftables.connection_key(ends.there, ends.peer_port, ends.here, ends.port),
        nftables.connection_key(ends.here, ends.port, ends.there, ends.peer_port),
    )


def _feed(netns: OwnedFd, texts: dict[int, list[str]]) -> None:
    for argv, text in _iptables_commands(texts):
        if in_netns(netns.fileno(), lambda argv=argv, text=text: caretaker.feed(argv, text)):  # type: ignore[misc]
            raise RefusedError("packets cannot be held back by iptables", hint=_HINT)


def _iptables_chain(is_ajar: bool) -> list[str]:
    """The lines that make the chain of a namespace that is locked as a whole what it is to be, whatever it was."""
    what = "-p tcp --syn -j DROP" if is_ajar else "-j DROP"
    return [":CRIU - [0:0]", f"-A CRIU -m mark --mark {MARK:#x} -j ACCEPT", f"-A CRIU {what}"]


def _iptables_texts(ends: Sequence[Ends] | None, *, lock: bool, is_ajar: bool = False) -> list[dict[int, list[str]]]:
    """Lines for ``iptables-restore`` by the length of addresses; several texts are fed one after the other."""
    if ends is None:
        if lock:
            lines = [*_iptables_chain(is_ajar), "-I INPUT -j CRIU", "-I OUTPUT -j CRIU"]
            return [{n: lines for n in (4, 16)}]
        jumps = [":CRIU - [0:0]", "-D INPUT -j CRIU", "-D OUTPUT -j CRIU"]
        # A chain can be removed only when nothing jumps to it.  iptables' nftables variant still finds a jump that the
        # same text takes away: so the chain is removed by a second one.
        return [{n: jumps for n in (4, 16)}, {n: [":CRIU - [0:0]", "-X CRIU"] for n in (4, 16)}]
    found: dict[int, list[str]] = {}
    for each in ends:
        family = socket.AF_INET if len(each.here) == 4 else socket.AF_INET6
        here, there = (socket.inet_ntop(family, address) for address in (each.here, each.there))
        for chain, source, sport, target, dport in (
            ("INPUT", there, each.peer_port, here, each.port),
            ("OUTPUT", here, each.port, there, each.peer_port),
        ):
            found.setdefault(len(each.here), []).append(
                f"{'-I' if lock else '-D'} {chain} --protocol tcp -m mark ! --mark {MARK:#x}"
                f" --source {source} --sport {sport} --destination {target} --dport {dport} -j DROP"
            )
    return [found]


def _iptables_commands(texts: dict[int, list[str]]) -> list[tuple[list[str], bytes]]:
    commands = []
    for length, lines in texts.items():
        program = find_program("iptables-restore" if length == 4 else "ip6tables-restore")
        if program is not None:
            text = "\n".join(("*filter", *lines, "COMMIT", ""))
            commands.append(([program, "-w", "--noflush"], text.encode()))
    return commands


# -- unlocking what a dump has locked -------------------------------------------------------------------------


def has_table(run_id: str) -> bool:
    """Whether the dump *run_id* has left a table in this thread's network namespace."""
    try:
        with nftables.open_socket() as connection:
            return any(nftables.has_table(connection, name) for name in _table_names(run_id))
    except (OSError, KernelError):
        return False


class Left:
    """What a dump has locked, to be undone in this thread's network namespace: of *ends*, or (None) all of it.

    That there is nothing to undo is normal.
    """

    def __init__(self, run_id: str, method: int, ends: Sequence[Ends] | None) -> None:
        self._tables: list[tuple[Socket, str]] = []
        self._commands: list[tuple[list[str], bytes]] = []
        self._netns: OwnedFd | None = None
        if method == NFTABLES:
            for name in _table_names(run_id):
                try:
                    self._tables.append((nftables.open_socket(), name))
                except OSError as error:
                    log.warn(f"the network cannot be unlocked: {error}")
        elif method == IPTABLES:
            self._netns = OwnedFd(_open_own())
            texts = _iptables_texts(ends, lock=False)
            self._commands = [command for text in texts for command in _iptables_commands(text)]

    def steps(self) -> list[caretaker.Step]:
        """The same by a caretaker; those for which it has no room are not among them."""
        tables = [(each.fileno(), nftables.batch([nftables.delete_table(name)])) for each, name in self._tables]
        steps = [caretaker.send(fd, text) for fd, text in tables]
        if self._netns is not None:
            netns = self._netns.fileno()
            steps += [caretaker.run(netns, argv, text) for argv, text in self._commands if len(text) <= _ROOM]
        return steps

    def let_through(self) -> None:
        """Undo it; ``close`` is still to come."""
        for connection, name in self._tables:
            try:
                # Not by trial: to take back a transaction that fails the kernel waits for a grace period of RCU, some
                # 10 ms (__nf_tables_abort), and the tree has not been let go yet.
                if nftables.has_table(connection, name):
                    nftables.commit(connection, [nftables.delete_table(name)])
            except (OSError, KernelError) as error:
                if error.errno != errno.ENOENT:
                    log.warn(f"the network cannot be unlocked: {error}")
        for argv, text in self._commands:
            assert self._netns is not None
            if code := in_netns(self._netns.fileno(), lambda argv=argv, text=text: caretaker.feed(argv, text)):  # type: ignore[misc]
                log.debug(f"{argv[0]}: exit code {code}: nothing was locked")

    def close(self) -> None:
        """Close what it was done by, as ``NetLock.close`` does; whoever has been told the steps has duplicates."""
        for connection, _ in self._tables:
            connection.close()
        if self._netns is not None:
            self._netns.close()
