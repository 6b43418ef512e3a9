"""Terminals: ptys, /dev/tty, the console, virtual and serial terminals.

What a terminal is set to is in ``tty_params``, the pairs in ``tty_pairs``, what lies in them in ``tty_data``, whose
controlling terminal it is in ``tty_sessions``.

Kernel view
    The device number tells the kinds apart; TIOCGDEV what is behind /dev/tty.
Image
    ``tty_file_entry`` per description with a ``reg_file_entry`` for its path, ``tty_info_entry`` per end of a terminal,
    ``tty_data_entry`` per end that something waits for.  The id of an end is twice its number, plus one for a master;
    other terminals have numbers above all ptys, as CRIU has them.
Restore
    A slave whose master is outside of the tree gets a new one, which goes to whoever asked for the restore
    (``orphan_pts_master``, as container runtimes do), or becomes the terminal that we stand on (``--shell-job``).
Limits
    What lies in a terminal whose master is outside of the tree stays there.  One with a line discipline other than the
    usual one (N_TTY) is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import TreePid
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.kinds import TTY_DATA, TTY_INFO
from torpor.images.store import load_all
from torpor.kernel import signal
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.kernel.uapi.ioctls import TIOCGDEV, TIOCGPTN
from torpor.objects.files import fown, status_flags, tty_data, tty_pairs, tty_params
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.files.paths import DELETED, is_terminal, open_below
from torpor.objects.files.tty_pairs import Early, Masters, Pair, is_master
from torpor.objects.files.tty_sessions import Sessions, is_in_foreground, owner_of, set_foreground
from torpor.objects.model import RestoreProcess
from torpor.objects.session import DumpContext, DumpStage, RestoreContext, RestoreStage

_PTS_MAJOR = 136
_PTY = m.TtyType.PTY
# First numbers of what is no pty, and of ptys whose own number is taken (two instances of devpts, hung-up slaves).
_NUMBERS: dict[int, int] = {m.TtyType.CONSOLE: 1002, m.TtyType.VT: 1004, m.TtyType.CTTY: 1006, m.TtyType.SERIAL: 1010}
_EXTERNAL_NUMBER = 1012
_MAX_NUMBER = 1087


def matches(file: OpenFile) -> bool:
    """Character devices of the majors that terminals have."""
    return stat.S_ISCHR(file.stat.st_mode) and not file.flags & O_PATH and _type_of(file) is not None


def _type_of(file: OpenFile) -> int | None:
    major, minor = os.major(file.stat.st_rdev), os.minor(file.stat.st_rdev)
    if 128 <= major <= 143:
        return _PTY
    if major == 5:
        return {0: m.TtyType.CTTY, 1: m.TtyType.CONSOLE, 2: _PTY}.get(minor)
    if major == 4:
        return m.TtyType.VT if 1 <= minor <= 63 else m.TtyType.SERIAL if minor else None
    return m.TtyType.SERIAL if major in (188, 204) else None


# -- dump -----------------------------------------------------------------------------------------------------


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.tty``; the terminal itself is dumped when all are known."""
    tty = entry.tty
    tty.id, tty.flags = entry.id, file.flags
    fown.fill(tty.fown, file)
    terminals = context.part(_Terminals)
    tty.tty_info_id = terminals.id_of(file)
    if not terminals.is_external(file):
        tty.regf_id = _dump_path(file, context)


def check(file: OpenFile, context: DumpContext) -> None:
    """Refuse, when all are known, terminals of others."""
    context.part(_Terminals).id_of(file, keep=False)


def _dump_path(file: OpenFile, context: DumpContext) -> int:
    """An entry for the node, which no descriptor has; its id."""
    entry = context.files.new_entry(m.fd_types.REG)
    reg = entry.reg
    reg.id, reg.flags, reg.pos = entry.id, file.flags, 0
    fown.fill(reg.fown, file)
    reg.name = file.target.removesuffix(DELETED)
    reg.mode = file.stat.st_mode
    return entry.id


@dataclass(slots=True)
class _End:
    """An end of a terminal that was met, with a duplicate of our own."""

    info: m.tty_info_entry
    file: OpenFile
    fd: OwnedFd
    device: int

    @property
    def is_master(self) -> bool:
        return self.info.type == _PTY and is_master(self.info.rdev)

    @property
    def is_live_slave(self) -> bool:
        return self.info.type == _PTY and not self.is_master and self.info.HasField("termios")


class _Terminals:
    """All terminals of a dump."""

    def __init__(self, context: DumpContext) -> None:
        self._context = context
        self._ends: dict[object, _End] = {}
        self._ids: set[int] = set()
        context.at(DumpStage.KNOWN, self._check_all)
        context.at(DumpStage.WRITTEN, self._finish)

    def is_external(self, file: OpenFile) -> bool:
        """Whether the user says that it will be given at restore."""
        return f"tty[{file.stat.st_rdev:x}:{file.stat.st_dev:x}]" in self._context.policies.external

    def id_of(self, file: OpenFile, *, keep: bool = True) -> int:
        """The ``tty_info_entry`` of the end behind *file*, which is kept open for what is done at the end."""
        kind = _type_of(file)
        assert kind is not None
        if line := tty_params.discipline(file.fd):
            raise file.refuse(
                f"its terminal {file.target} has line discipline {line}, which is not carried",
                hint="have its program set it back to 0 (TIOCSETD)",
            )
        device = file.stat.st_rdev
        index = 0
        if self.is_external(file):
            kind = m.TtyType.EXT_TTY
        elif kind == m.TtyType.CTTY:
            device = tty_params.read_int(file.fd, TIOCGDEV) if not tty_params.is_hung_up(file.fd) else 0
        elif kind == _PTY and is_master(device):
            index = tty_params.read_int(file.fd, TIOCGPTN)
            device = os.makedev(_PTS_MAJOR, index)
        elif kind == _PTY:
            index = os.minor(device)
        hung_up = tty_params.is_hung_up(file.fd)
        # Not the inode for masters: all of them are /dev/ptmx.
        key = (kind, file.stat.st_rdev, device, hung_up, file.stat.st_ino if hung_up else 0)
        if key not in self._ends:
            self._ends[key] = self._new_end(file, kind, index, device, OwnedFd(os.dup(file.fd) if keep else -1))
        return self._ends[key].info.id

    def _new_end(self, file: OpenFile, kind: int, index: int, device: int, kept: OwnedFd) -> _End:
        info = m.tty_info_entry(type=kind, sid=0, pgrp=0)
        end = _End(info, file, kept, device)
        tty_params.dump(file, info, is_master=kind == _PTY and is_master(file.stat.st_rdev))
        if kind == _PTY:
            info.pty.index = index
        number = index if kind == _PTY else _NUMBERS.get(kind, _EXTERNAL_NUMBER)
        wanted = 2 * number + end.is_master
        while wanted in self._ids:
            number = max(number + 1, _EXTERNAL_NUMBER)
            if number > _MAX_NUMBER:
                raise file.refuse("there are too many terminals with the same number")
            wanted = 2 * number + end.is_master
        self._ids.add(wanted)
        info.id = wanted
        return end

    def _masters(self) -> dict[int, _End]:
        return {end.info.pty.index: end for end in self._ends.values() if end.is_master}

    def _check_all(self) -> None:
        masters = self._masters()
        for end in self._ends.values():
            self._check(end, masters)
        if self._context.policies.terminals.orphan_pts_master and not self._context.policies.terminals.shell_job:
            orphans = [e for e in self._ends.values() if e.is_live_slave and e.info.pty.index not in masters]
            for end in orphans:
                if end.file.process.has_entered:
                    # Whoever restores a container has a place for the terminal of its first process, and no other.
                    raise end.file.refuse(
                        f"its terminal {end.file.target} is driven from outside of the tree, and it came from there "
                        "(podman exec -t)",
                        hint="end it and try again, or lose it by --exec-processes=leave-out",
                    )
            for end in orphans[1:]:
                raise end.file.refuse(
                    f"{end.file.target} and {orphans[0].file.target} are both driven from outside of the tree",
                    hint="only one terminal can be handed over at the restore; close the other",
                )

    def _finish(self) -> None:
        masters = self._masters()
        slaves = {end.info.pty.index: end for end in self._ends.values() if end.is_live_slave}
        for index, master in masters.items():
            self._dump_contents(master, slaves.get(index))
            tty_pairs.dump_slave_node(master.fd.fileno(), master.info, master.file.process.idmaps)
        for index, slave in slaves.items():
            if index not in masters:
                tty_pairs.dump_node(slave.file.stat, slave.info, slave.file.process.idmaps)
        for end in self._ends.values():
            self._context.image("TTY_INFO").add(end.info)
            end.fd.close()

    def _check(self, end: _End, masters: dict[int, _End]) -> None:
        """Refuse what the restore could not give back; fill in whose terminal it is."""
        info = end.info
        shell_job = self._context.policies.terminals.shell_job
        may_be_orphan = shell_job or self._context.policies.terminals.orphan_pts_master
        if end.is_live_slave and info.pty.index not in masters and not may_be_orphan:
            raise end.file.refuse(
                f"its terminal {end.file.target} is driven from outside of the tree",
                hint="use --shell-job to let it continue on another terminal, or checkpoint the other end as well",
            )
        if not info.HasField("termios") and info.type != m.TtyType.CTTY:
            return
        processes = self._context.processes
        info.sid, info.pgrp = owner_of(end.device, processes)
        if info.sid and not shell_job and all(process.ns_pid != info.sid for process in processes):
            raise end.file.refuse(
                f"its terminal {end.file.target} belongs to session {info.sid}, whose leader is not part of the tree",
                hint="use --shell-job, or checkpoint the session's leader",
            )

    def _dump_contents(self, master: _End, slave: _End | None) -> None:
        fd = master.fd.fileno()
        if slave is None or master.info.locked:
            master.info.torpor_slave_closed = _has_hung_up(fd)
            self._store(master, tty_data.peek_output(fd, None))
            return
        with OwnedFd(tty_data.open_slave(fd, os.O_RDWR | os.O_NONBLOCK)) as own:
            self._store(slave, tty_data.peek_input(fd, own.fileno()))
            self._store(master, tty_data.peek_output(fd, own.fileno()))

    def _store(self, end: _End, data: bytes) -> None:
        if data:
            self._context.image("TTY_DATA").add(m.tty_data_entry(tty_id=end.info.id, data=data))


def _has_hung_up(fd: int) -> bool:
    import select

    poller = select.poll()
    poller.register(fd, 0)
    return bool(poller.poll(0))


# -- restore --------------------------------------------------------------------------------------------------


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """Open this description; the terminal itself with its settings when it is the first."""
    return context.part(_Restoring).open(entry)


def restore_sessions(process: RestoreProcess, context: RestoreContext) -> None:
    """Controlling terminal and foreground group of the session that *process* leads, if it does."""
    context.part(_Restoring).restore_session(process)


class _Restoring:
    """All terminals of a restore."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        self._infos = {info.id: info for info in load_all(context.store, TTY_INFO)}
        has_data = context.store.exists(TTY_DATA.file_name(None))
        self._data = {data.tty_id: data.data for data in load_all(context.store, TTY_DATA)} if has_data else {}
        self._masters = Masters(context.files.root_fd, self._live_numbers(), context.part(Early))
        self._pairs: dict[int, Pair] = {}
        self._entries: dict[int, list[m.file_entry]] = {}
        for entry in context.files.entries.values():
            if entry.HasField("tty"):
                self._entries.setdefault(entry.tty.tty_info_id, []).append(entry)
        #: By number, and whether it is the master.
        self._lives: dict[tuple[int, bool], m.tty_info_entry] = {}
        self._of_session: dict[int, m.tty_info_entry] = {}
        for info in self._infos.values():
            if info.type == _PTY and info.HasField("termios"):
                self._lives.setdefault((info.pty.index, is_master(info.rdev)), info)
            if info.type != m.TtyType.CTTY:
                self._of_session.setdefault(info.sid, info)
        self._sessions = Sessions(context.processes)
        self._is_prepared: set[int] = set()
        self._openers: dict[int, Callable[[m.file_entry, m.tty_info_entry], int]] = {
            _PTY: self._open_pty,
            m.TtyType.CTTY: self._open_dev_tty,
            m.TtyType.EXT_TTY: self._open_external,
            m.TtyType.CONSOLE: self._open_node,
            m.TtyType.VT: self._open_node,
            m.TtyType.SERIAL: self._open_node,
        }
        context.at(RestoreStage.OPENED, self._finish)

    def open(self, entry: m.file_entry) -> int:
        """A new descriptor of the description, or the only one."""
        info = self._info_of(entry)
        opener = self._openers.get(info.type)
        if opener is None:
            raise ImageError(f"tty-info.img: {info.id} is of type {info.type}")
        return opener(entry, info)

    def _info_of(self, entry: m.file_entry) -> m.tty_info_entry:
        try:
            return self._infos[entry.tty.tty_info_id]
        except KeyError:
            raise ImageError(f"tty-info.img has no terminal {entry.tty.tty_info_id}") from None

    def _path_of(self, entry: m.file_entry, default: str) -> str:
        named = self._context.files.entries.get(entry.tty.regf_id)
        return named.reg.name if named is not None and named.HasField("reg") and named.reg.name else default

    def _entries_of(self, info: m.tty_info_entry) -> Iterator[m.file_entry]:
        return iter(self._entries.get(info.id, ()))

    # Pseudo-terminals

    def _open_pty(self, entry: m.file_entry, info: m.tty_info_entry) -> int:
        if not info.HasField("termios"):
            return self._open_hung_up(entry, info)
        index = tty_pairs.check_index(info)
        if self._is_inherited(info):
            return self._open_inherited(entry, info)
        if index not in self._pairs:
            self._pairs[index] = self._make_pair(index)
        pair = self._pairs[index]
        if is_master(info.rdev):
            return os.dup(pair.master.fileno())
        return self._open_console(entry, info) or tty_pairs.open_slave(pair, entry.tty.flags)

    def _open_console(self, entry: m.file_entry, info: m.tty_info_entry) -> int | None:
        """A slave by the other name that it was opened by, if it has that again: a container's /dev/console."""
        path = self._path_of(entry, "")
        if not path or path.rpartition("/")[2].isdecimal():
            return None
        try:
            fd = OwnedFd(self._open_path(path, entry))
        except RestoreError:
            return None
        return fd.release() if os.fstat(fd.fileno()).st_rdev == info.rdev else None

    def _open_path(self, path: str, entry: m.file_entry) -> int:
        """A terminal by its name; a line that waits for a carrier is not waited for."""
        flags = entry.tty.flags & ~os.O_CREAT
        fd = open_below(self._context.files.root_fd, path, flags | os.O_NOCTTY | os.O_NONBLOCK, is_terminal)
        status_flags.replace(fd, flags)
        return fd

    def _live_numbers(self) -> set[int]:
        return {info.pty.index for info in self._infos.values() if info.type == _PTY and info.HasField("termios")}

    def _live(self, index: int, *, master: bool) -> m.tty_info_entry | None:
        return self._lives.get((index, master))

    def _make_pair(self, index: int) -> Pair:
        master, slave = self._live(index, master=True), self._live(index, master=False)
        if master is None:
            return self._make_orphan(index, slave)
        described = next(self._entries_of(master), None)
        path = "/dev/ptmx" if described is None else self._path_of(described, "/dev/ptmx")
        pair = Pair(index, self._masters.open(path, index), master, slave)
        tty_pairs.prepare(pair, 0 if described is None else described.tty.flags, self._context.idmaps)
        return pair

    def _make_orphan(self, index: int, slave: m.tty_info_entry | None) -> Pair:
        """A pair whose master is not the tree's, but for whoever asked for the restore."""
        take = self._context.orphan_master
        assert slave is not None and take is not None
        described = next(self._entries_of(slave), None)
        directory, _, name = ("" if described is None else self._path_of(described, "")).rpartition("/")
        # Its own instance of devpts, if its path tells; a container's /dev/console is a slave as well.
        pair = Pair(
            index, self._masters.open(f"{directory}/ptmx" if name.isdecimal() else "/dev/ptmx", index), None, slave
        )
        tty_pairs.prepare(pair, 0, self._context.idmaps)
        take(pair.master.fileno())
        return pair

    def _open_hung_up(self, entry: m.file_entry, info: m.tty_info_entry) -> int:
        """All descriptions of a slave that was hung up; the others are kept with the files."""
        path = self._path_of(entry, "")
        ptmx = path.rpartition("/")[0] + "/ptmx" if path else "/dev/ptmx"
        master = self._masters.open(ptmx, None)
        opened = {other.id: tty_data.open_slave(master.fileno(), other.tty.flags) for other in self._entries_of(info)}
        master.close()
        own = opened.pop(entry.id)
        for file_id, fd in opened.items():
            self._context.files.adopt(file_id, fd)
        return own

    # The terminal that we stand on

    def _is_inherited(self, info: m.tty_info_entry) -> bool:
        if self._context.policies.terminals.orphan_pts_master and self._context.orphan_master is not None:
            return False
        return info.type == _PTY and not is_master(info.rdev) and self._live(info.pty.index, master=True) is None

    def _open_inherited(self, entry: m.file_entry, info: m.tty_info_entry) -> int:
        if not self._context.policies.terminals.shell_job:
            raise RestoreError(
                f"{self._path_of(entry, 'a terminal')} was driven from outside of the tree",
                hint="use --shell-job to continue on the terminal of this command",
            )
        if not os.isatty(0):
            raise RestoreError("--shell-job: the standard input is no terminal")
        fd = os.open("/proc/self/fd/0", entry.tty.flags & ~os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC)
        if info.id not in self._is_prepared and is_in_foreground():
            self._is_prepared.add(info.id)
            # Its size is its own: the terminal of now may be another than the one of then.
            settings = m.tty_info_entry()
            settings.CopyFrom(info)
            settings.ClearField("winsize")
            # Somebody may put us into its background meanwhile.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
            try:
                tty_params.restore(fd, settings)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return fd

    # What is no pseudo-terminal

    def _open_dev_tty(self, entry: m.file_entry, info: m.tty_info_entry) -> int:
        if not self._sessions.has_leader(TreePid(info.sid)):
            if not self._context.policies.terminals.shell_job:
                raise ImageError(f"tty-info.img: {info.id}: session {info.sid} has no leader")
            return os.open("/dev/tty", entry.tty.flags | os.O_NOCTTY | os.O_CLOEXEC)
        self._acquire(info.sid)
        return self._sessions.open_dev_tty(info, self._path_of(entry, ""), entry.tty.flags)

    def _open_external(self, entry: m.file_entry, info: m.tty_info_entry) -> int:
        name = f"tty[{info.rdev:x}:{info.dev:x}]"
        if name not in self._context.files.inherited:
            raise RestoreError(f"the external terminal {name} is missing", hint=f"give it by --inherit-fd fd[N]:{name}")
        fd = os.dup(self._context.files.inherited[name])
        tty_params.restore(fd, info)
        status_flags.restore(fd, entry.tty.flags)
        return fd

    def _open_node(self, entry: m.file_entry, info: m.tty_info_entry) -> int:
        path = self._path_of(entry, "/dev/console")
        fd = self._open_path(path, entry)
        if info.id not in self._is_prepared:
            self._is_prepared.add(info.id)
            tty_params.restore(fd, info)
        return fd

    # At the end

    def _finish(self) -> None:
        self._masters.close()
        for pair in self._pairs.values():
            ends = (pair.master_info, pair.slave_info)
            output, to_slave = (b"" if end is None else self._data.get(end.id, b"") for end in ends)
            tty_pairs.fill(pair, output, to_slave)
            pair.close()

    def restore_session(self, process: RestoreProcess) -> None:
        """Controlling terminal and foreground group, if *process* leads a session or is the root of a shell's job."""
        if process.entry.sid == process.ns_pid:
            found = self._acquire(process.ns_pid)
            if found is not None:
                self._sessions.set_foreground(*found)
        elif process is self._context.processes[0] and process.entry.pgid == process.ns_pid:
            inherited = (i for i in self._infos.values() if self._is_inherited(i) and i.HasField("termios"))
            if any(info.pgrp == process.entry.pgid for info in inherited) and is_in_foreground():
                set_foreground(process, process.entry.pgid, os.ttyname(0))

    def _acquire(self, sid: int) -> tuple[m.tty_info_entry, str] | None:
        """The terminal of a session, which has it from here on, and its path."""
        info = self._of_session.get(sid)
        if info is None:
            return None
        inherited = self._is_inherited(info)
        if inherited and not is_in_foreground():
            log.warn(f"session {sid} gets no controlling terminal: this one is in the background of a shell")
            return None
        path = self._terminal_path(info, inherited)
        self._sessions.acquire(info, path, steal=inherited)
        return info, path

    def _terminal_path(self, info: m.tty_info_entry, inherited: bool) -> str:
        if inherited:
            return os.ttyname(0)
        if info.type == _PTY:
            slave = self._live(info.pty.index, master=False)
            described = None if slave is None else next(self._entries_of(slave), None)
            index = info.pty.index
            if index not in self._pairs:
                self._pairs[index] = self._make_pair(index)
            return f"/dev/pts/{index}" if described is None else self._path_of(described, f"/dev/pts/{index}")
        described = next(self._entries_of(info), None)
        return "/dev/console" if described is None else self._path_of(described, "/dev/console")


KIND = FileKind("terminal", m.fd_types.TTY, matches, dump, restore, check=check)
