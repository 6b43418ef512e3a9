"""Control groups during a restore: made, entered, set."""

from __future__ import annotations

from torpor.base.records import dataclass, field
from torpor.base.typed import TYPE_CHECKING
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import load_all, load_one
from torpor.objects.cgroup import membership, model
from torpor.objects.cgroup.membership import Member
from torpor.objects.cgroup.yard import Yard
from torpor.objects.model import RestoreProcess

if TYPE_CHECKING:
    from torpor.engine.restore.session import RestoreSession
    from torpor.objects.cgroup.directories import Maker


@dataclass(slots=True)
class CgroupRestore:
    """What one restore does to control groups."""

    yard: Yard
    maker: Maker
    sets: dict[int, tuple[Member, ...]]
    threaded: frozenset[str]
    #: The dumper's set, whose tasks stay where we are.
    dumpers: int
    #: The groups in which we are ourselves, by hierarchy.
    ours: dict[str, str] = field(default_factory=dict)

    def wanted(self, number: int) -> tuple[Member, ...] | None:
        """The groups of a set; None for tasks that stay where they are."""
        if number in (0, self.dumpers) and number not in self.sets:
            return None
        if number not in self.sets:
            raise ImageError(f"cgroup.img has no set {number}")
        return self.sets[number]


def prepare(session: RestoreSession) -> None:
    """Make what is missing, before anybody is to be in it."""
    from torpor.objects.cgroup import rewriting
    from torpor.objects.cgroup.directories import Maker

    policy = session.options.cgroups
    if policy.mode == model.IGNORE or not session.store.exists(kinds.CGROUP.file_name()):
        return
    entries = load_all(session.store, kinds.CGROUP)
    if not entries or not entries[0].sets:
        return
    [entry] = entries
    controllers = list(entry.controllers)
    sets = {found.id: membership.load_set(found) for found in entry.sets}
    for controller in controllers:
        model.check_hierarchy(",".join(controller.cnames))
        for head in controller.dirs:
            if not head.dir_name.strip("/"):
                # The properties of a hierarchy's root, which no other group can have: --cgroup-root may make it one of
                # those.
                head.ClearField("properties")
    sets = rewriting.rewrite(controllers, sets, policy)
    inventory = load_one(session.store, kinds.INVENTORY)
    yard = Yard(policy.yard)
    session.cgroups = cgroups = CgroupRestore(
        yard, Maker(yard, policy.mode, [member for members in sets.values() for member in members]), sets,
        frozenset(",".join(found.cnames) for found in controllers if found.is_threaded), inventory.root_cg_set,
        {member.hierarchy: member.path for member in membership.read("/proc/self/cgroup")},
    )  # fmt: skip
    tops = {member.hierarchy: member.top for member in cgroups.wanted(_set_of(session.root)) or () if member.prefix}
    for controller in controllers:
        hierarchy = ",".join(controller.cnames)
        if _is_of_use(controller):
            cgroups.maker.make(controller, held=tops.get(hierarchy) if hierarchy == model.V2 else None)


def _is_of_use(controller: m.cg_controller_entry) -> bool:
    return any(head.dir_name not in ("", "/") or head.children for head in controller.dirs)


def enter_root(session: RestoreSession) -> None:
    """Move the root puppet, and give it the cgroup namespace that the tree has for itself."""
    from torpor.objects.cgroup import namespace

    cgroups, root = session.cgroups, session.root
    members = cgroups.wanted(_set_of(root)) if cgroups else None
    at = cgroups.ours if cgroups else {}
    if session.new_cgroup_ns:
        if cgroups is not None and members is not None:
            tops = [Member(member.hierarchy, member.top) for member in members]
            membership.move(root.pid, tops, at, cgroups.yard)
            at = at | {member.hierarchy: member.path for member in tops}
        namespace.enter_new(root.runner)
    if cgroups is not None:
        cgroups.maker.make_held()
        if members is not None:
            membership.move(root.pid, members, at, cgroups.yard)
        cgroups.maker.set_held()


def enter(session: RestoreSession, process: RestoreProcess) -> None:
    """Move a puppet that was born into the groups of whose clone it is."""
    cgroups = session.cgroups
    if cgroups is None or process is session.root or process.is_zombie:
        return
    members = cgroups.wanted(_set_of(process))
    if members is not None:
        mother = process.cloned_from or session.root
        born_in = cgroups.wanted(_set_of(mother))
        at = cgroups.ours if born_in is None else cgroups.ours | {each.hierarchy: each.path for each in born_in}
        membership.move(process.pid, members, at, cgroups.yard)


def enter_all(session: RestoreSession) -> None:
    """Move the puppets of which none was cloned, and which so have not been moved before."""
    if session.cgroups is not None:
        for process in session.alive:
            if not process.has_borne:
                enter(session, process)


def enter_threads(session: RestoreSession) -> None:
    """Move threads that are elsewhere than their process."""
    _enter_threads(session, last=False)


def enter_last_threads(session: RestoreSession) -> None:
    """The same of those that come last."""
    _enter_threads(session, last=True)


def _enter_threads(session: RestoreSession, *, last: bool) -> None:
    cgroups = session.cgroups
    if cgroups is None:
        return
    for process in (each for each in session.alive if each.threads_last is last):
        number = _set_of(process)
        at = {member.hierarchy: member.path for member in cgroups.wanted(number) or ()} or cgroups.ours
        for thread in process.threads[1:]:
            own = thread.core.thread_core.cg_set
            if own and own != number:
                members = [each for each in cgroups.wanted(own) or () if each.hierarchy in cgroups.threaded]
                membership.move(thread.runner.tid, members, at, cgroups.yard, thread=True)


def set_properties(session: RestoreSession) -> None:
    """Limits, when everything is there that they limit."""
    if session.cgroups is not None:
        session.cgroups.maker.set_properties()


def freeze(session: RestoreSession) -> None:
    """Freeze again the control groups that were frozen when the tree was dumped."""
    if session.cgroups is not None:
        session.cgroups.maker.freeze()


def _set_of(process: RestoreProcess) -> int:
    if process.is_zombie:
        return 0
    # In older images it stands with the task, not with the thread.
    return process.core.thread_core.cg_set or process.core.tc.cg_set
