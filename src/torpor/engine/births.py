"""Who is born of whom, and when, so that every process ends up in its session, its group and below its parent.

Kernel view
    A session is entered by setsid(2), which makes a new one, or by birth; a group by setpgid(2) within the session.
    A process whose session differs from its parent's was born before the parent's setsid, or was born of another
    that has died (then a subreaper or the namespace's init is its parent now).
Here
    Pure planning on pids: :func:`plan_births` and :func:`plan_groups` give steps, which ``forking`` carries out.
    The leader of a session or group that has died is made again as a helper, and ended when its members are in place.
    A member of a session can bear children for its own parent (CLONE_PARENT); any other ancestor gets a child by the
    death of the one between (and is a subreaper for that moment).
Limits
    Tables shared (CLONE_FILES and the like) by others than parent and child, or siblings, are refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from torpor.base.errors import TorporError
from torpor.base.ids import TreePid
from torpor.base.records import dataclass


class PlanError(TorporError):
    """A family that no sequence of clones, setsids and deaths known here leads to."""


class Member:
    """A process of the tree, or a helper.  ``shares`` names the tables it shares with others: (kind, id)."""

    __slots__ = ("children", "is_helper", "parent", "pgid", "pid", "shares", "sid")

    def __init__(
        self,
        pid: TreePid,
        sid: TreePid,
        pgid: TreePid,
        parent: Member | None,
        shares: frozenset[tuple[str, int]] = frozenset(),
        *,
        is_helper: bool = False,
    ) -> None:
        self.pid, self.sid, self.pgid = pid, sid, pgid
        self.parent = parent
        self.shares = shares
        self.is_helper = is_helper
        self.children: list[Member] = []
        if parent is not None and not is_helper:
            parent.children.append(self)

    @property
    def leads_session(self) -> bool:
        """Whether it has called setsid."""
        return self.sid == self.pid

    def iter_ancestors(self) -> Iterator[Member]:
        """Its parent, and so on."""
        member = self.parent
        while member is not None:
            yield member
            member = member.parent


@dataclass(frozen=True, slots=True)
class Birth:
    """*by* clones *child*: its own, or, as a ``sibling``, its parent's."""

    child: Member
    by: Member
    sibling: bool = False


@dataclass(frozen=True, slots=True)
class Orphan:
    """*by* clones one that clones *child* and dies; *to* adopts the child."""

    child: Member
    by: Member
    to: Member


@dataclass(frozen=True, slots=True)
class SetSid:
    """*who* calls setsid(2), and leads a new session and group."""

    who: Member


@dataclass(frozen=True, slots=True)
class SetPgid:
    """*who* calls setpgid(0, *pgid*)."""

    who: Member
    pgid: TreePid


@dataclass(frozen=True, slots=True)
class End:
    """The helper *who* is killed, and waited for by its parent."""

    who: Member


Step = Birth | Orphan | SetSid | SetPgid | End


def iter_family(root: Member) -> Iterator[Member]:
    """The root and all below it, parents before children."""
    stack = [root]
    while stack:
        member = stack.pop()
        yield member
        stack.extend(reversed(member.children))


def plan_births(root: Member) -> list[Step]:
    """All but the root's own birth.  PlanError where it cannot be done."""
    return _Births(root).run()


class _Births:
    def __init__(self, root: Member) -> None:
        self._root = root
        self._family = list(iter_family(root))
        self._by_pid = {member.pid: member for member in self._family}
        self._needs: dict[Member, TreePid | None] = {}
        #: The session that each one born is in at this point of the plan; 0 is one outside of the pid namespace.
        self._session: dict[Member, TreePid] = {}
        self._pending: list[Member] = []
        self._sharers: dict[tuple[str, int], list[Member]] = {}
        self._steps: list[Step] = []

    def run(self) -> list[Step]:
        """The steps that bear all but the root.  PlanError where no steps lead there."""
        for member in reversed(self._family):
            self._needs[member] = self._need(member)
        self._take_in(self._root, TreePid(0) if self._root.leads_session else self._root.sid)
        self._settle(self._root)
        while self._pending:
            waiting = sorted(self._pending, key=lambda member: -sum(1 for _ in member.iter_ancestors()))
            self._pending = []
            stuck = [member for member in waiting if not self._bear_elsewhere(member)]
            if len(stuck) == len(waiting):
                lost = stuck[0]
                raise PlanError(f"pid {lost.pid} is in session {lost.sid}, which its ancestors never were in")
            self._pending += stuck
        return self._steps

    def _need(self, member: Member) -> TreePid | None:
        """The session in which it must be born; None: any."""
        if not member.leads_session:
            return member.sid
        wanted = [self._needs[child] for child in member.children]
        older = [one for one in wanted if one is not None and one != member.pid and not self._leads_below(one, member)]
        # A dead leader can be made again wherever it is needed, one that lives cannot.
        living = [one for one in older if one in self._by_pid or one == self._root.sid]
        return next(iter([*living, *older]), None)

    def _leads_below(self, session: TreePid, member: Member) -> bool:
        leader = self._by_pid.get(session)
        return leader is not None and (leader is member or member in leader.iter_ancestors())

    def _take_in(self, member: Member, session: TreePid) -> None:
        self._session[member] = session
        for share in member.shares:
            self._sharers.setdefault(share, []).append(member)

    def _settle(self, first: Member) -> None:
        """Everything below *first* that follows from births by parents."""
        stack = [first]
        while stack:
            member = stack.pop()
            left = member.children
            if member.leads_session and self._session[member] != member.pid:
                born_in = self._session[member]
                early = [child for child in left if self._needs[child] == born_in]
                for child in early:
                    self._bear(child, member)
                left = [child for child in left if child not in self._session]
                self._steps.append(SetSid(member))
                self._session[member] = member.pid
            for child in left:
                if self._needs[child] in (None, self._session[member]):
                    self._bear(child, member)
                else:
                    self._pending.append(child)
            stack.extend(child for child in reversed(member.children) if child in self._session)

    def _bear(self, child: Member, parent: Member) -> None:
        by = self._sharing_mother(child, parent)
        self._steps.append(Birth(child, by, sibling=by is not parent))
        self._take_in(child, self._session[by])

    def _sharing_mother(self, child: Member, parent: Member) -> Member:
        """The parent, unless the child shares a table with a sibling rather than with the parent."""
        wanted = {share for share in child.shares if share in self._sharers}
        if wanted <= parent.shares:
            return parent
        for other in parent.children:
            if (
                other in self._session
                and wanted <= other.shares
                and self._session[other] == self._session[parent]
                and not other.leads_session
            ):
                return other
        kind = min(kind for kind, _ in wanted - parent.shares)
        raise PlanError(
            f"pid {child.pid} shares its {kind} with a process that is neither its parent nor its parent's child"
        )

    def _bear_elsewhere(self, child: Member) -> bool:
        """Have it born by its session's leader (made again if it has died); False if that one is not there yet."""
        parent = child.parent
        session = self._needs[child]
        assert parent is not None and session is not None
        leader = self._by_pid.get(session)
        if leader is None and session > 0:
            leader = Member(session, session, session, parent, is_helper=True)
            self._by_pid[session] = leader
            self._steps += (Birth(leader, parent), SetSid(leader))
            self._session[leader] = session
        if leader is None or self._session.get(leader) != session:
            return False
        if any(share in self._sharers for share in child.shares):
            raise PlanError(f"pid {child.pid} shares tables with others, and its session's leader has died")
        if leader.parent is parent:
            self._steps.append(Birth(child, leader, sibling=True))
        elif parent is leader or parent in leader.iter_ancestors():
            self._steps.append(Orphan(child, leader, parent))
        else:
            return False
        self._take_in(child, session)
        self._settle(child)
        return True


def plan_groups(root: Member, births: Iterable[Step]) -> list[Step]:
    """Everyone into their groups, once all are born as *births* says; then the helpers' ends."""
    return _Groups(root, list(births)).run()


class _Groups:
    def __init__(self, root: Member, births: list[Step]) -> None:
        self._family = list(iter_family(root))
        self._by_pid = {member.pid: member for member in self._family}
        self._helpers: list[Member] = []
        #: The group that each one is in at this point of the plan.
        self._group: dict[Member, TreePid] = {root: TreePid(0) if root.leads_session else root.pgid}
        if root.pgid in self._by_pid and not root.leads_session:
            self._group[root] = TreePid(-1)
        self._steps: list[Step] = []
        self._follow(births)
        #: How many stay in each group: they belong there, or are helpers.
        self._n_staying: defaultdict[TreePid, int] = defaultdict(int)
        for one, group in self._group.items():
            self._n_staying[group] += _stays(one, group)

    def _follow(self, births: list[Step]) -> None:
        for step in births:
            match step:
                case Birth(child, by):
                    self._group[child] = self._group[by]
                    if child.is_helper:
                        self._helpers.append(child)
                        self._by_pid[child.pid] = child
                case Orphan(child, by, _):
                    self._group[child] = self._group[by]
                case SetSid(who):
                    self._group[who] = who.pid
                case SetPgid() | End():
                    raise ValueError("births have no groups")

    def run(self) -> list[Step]:
        """The steps that bring everyone into their groups, and end the helpers.  PlanError where none do."""
        wrong = [member for member in self._family if self._group[member] != member.pgid]
        passing: list[Member] = []
        for member in wrong:
            self._make_sure_of(member.pgid, member, passing)
        for member in [*(one for one in wrong if one not in passing), *passing]:
            if self._group[member] != member.pgid:
                self._enter(member, member.pgid)
        self._steps += [End(helper) for helper in reversed(self._helpers)]
        return self._steps

    def _enter(self, member: Member, pgid: TreePid) -> None:
        self._steps.append(SetPgid(member, pgid))
        before = self._group.get(member)
        if before is not None and _stays(member, before):
            self._n_staying[before] -= 1
        self._group[member] = pgid
        self._n_staying[pgid] += _stays(member, pgid)

    def _make_sure_of(self, pgid: TreePid, member: Member, passing: list[Member]) -> None:
        """See to it that the group exists until *member* has entered it."""
        if self._n_staying[pgid]:
            return
        owner = self._by_pid.get(pgid)
        if owner is not None:
            if owner.sid != member.sid:
                raise PlanError(f"pid {member.pid} is in process group {pgid} of another session")
            self._enter(owner, pgid)
            if owner.pgid != pgid and not owner.is_helper:
                passing.append(owner)
            return
        if pgid <= 0:
            raise PlanError(f"pid {member.pid} is in a process group outside of its pid namespace")
        helper = Member(pgid, member.sid, pgid, member, is_helper=True)
        self._by_pid[pgid] = helper
        self._helpers.append(helper)
        self._steps.append(Birth(helper, member))
        self._enter(helper, pgid)


def _stays(member: Member, group: TreePid) -> bool:
    return member.pgid == group or member.is_helper
