"""The order of a restore: the one place where it stands, each phase with the reason why it stands there.

A phase works on the whole tree.  Whoever adds a kernel object that must come before or after another adds a line here;
the work itself is in the modules below, or in ``objects``.
"""

from __future__ import annotations

from collections.abc import Callable

from torpor.base.records import dataclass
from torpor.engine.restore import (
    building,
    confining,
    finishing,
    forking,
    namespaces,
    network,
    policy,
    privileges,
    reading,
)
from torpor.engine.restore.session import RestoreSession
from torpor.objects.files import fown, locks
from torpor.objects.model import RestoreProcess
from torpor.objects.session import RestoreStage


@dataclass(frozen=True, slots=True)
class Phase:
    """A step of the restore.  ``span`` is the name under which its time is counted.

    ``by_images``: whether it goes by a number or name out of the images, so that what is wrong there may be theirs.
    ``breaks``: whether a signal may break it off in its midst.  It does where it may take long, or waits for somebody;
    the others are whole: whoever ends all that has been made must know of it.
    """

    name: str
    run: Callable[[RestoreSession], None]
    why: str
    span: str = "restore"
    by_images: bool = True
    breaks: bool = False


class Reached:
    """A step of the restore: what objects have left for a stage is done."""

    def __init__(self, stage: RestoreStage) -> None:
        self.stage = stage

    def __call__(self, session: RestoreSession) -> None:
        """Do what objects have left for the stage."""
        session.reach(self.stage)


@dataclass(frozen=True, slots=True)
class ProcessStep:
    """A step for one living process."""

    name: str
    run: Callable[[RestoreSession, RestoreProcess], None]
    why: str


def _in_cgroups(step: str) -> Callable[[RestoreSession], None]:
    """A step of :mod:`torpor.engine.restore.cgroups`, which is imported where there is something to be done."""

    def run(session: RestoreSession) -> None:
        if session.has_cgroups:
            from torpor.engine.restore import cgroups

            getattr(cgroups, step)(session)

    return run


def _enter_cgroups(session: RestoreSession, process: RestoreProcess) -> None:
    if session.cgroups is not None:
        from torpor.engine.restore import cgroups

        cgroups.enter(session, process)


#: In each puppet just before its children are cloned from it (parents first).
BEFORE_CHILDREN: tuple[ProcessStep, ...] = (
    ProcessStep("control groups", _enter_cgroups, "memory counts for the group that a task is in when it is filled"),
    # Last, for files are opened in the namespaces made before.
    ProcessStep("memory", building.early_memory, "pages that a child shares by copy-on-write stay shared"),
)

#: In each puppet once all processes have all their descriptors.
AFTER_FILES: tuple[ProcessStep, ...] = (
    ProcessStep(
        "controlling terminals",
        building.terminals,
        "sessions and groups exist, and so do all terminals",
    ),
)

RESTORE: tuple[Phase, ...] = (
    Phase("images", reading.read_images, "read and checked as a whole, before anything is made", breaks=True),
    Phase("policy", policy.check, "what the caller does not allow is refused before anything is made"),
    Phase("processor", reading.check_processor, "nothing is made on one that cannot run it"),
    Phase("security labels", reading.plan_labels, "nothing is made where a profile is missing"),
    Phase("plan", reading.plan, "where our memory and our channel lie in puppets must be free in all of them"),
    Phase(
        "pre-restore",
        reading.notify_start,
        "whoever is told prepares what is restored into",
        by_images=False,
        breaks=True,
    ),
    Phase("namespaces to make", namespaces.plan, "the root puppet is cloned with them"),
    Phase("privileges", privileges.check_restore, "what is lacking is named before anything is made"),
    Phase(
        "hold joined network",
        network.hold_joined,
        "as soon as it is known, for its peers know the address already",
        by_images=False,
    ),
    Phase("control groups", _in_cgroups("prepare"), "made before the first puppet is moved into them"),
    Phase("first process", forking.make_root, "with the namespaces that can only be made by clone", "forking"),
    Phase("user namespace", namespaces.make_user, "before its ids are mapped nobody in it can do anything", "forking"),
    Phase(
        "enter control groups",
        _in_cgroups("enter_root"),
        "children are born into them; a mount of cgroup shows what the cgroup namespace has as its root",
        "forking",
    ),
    Phase(
        "namespaces",
        namespaces.make,
        "children inherit them, and all files are opened inside of them",
        "forking",
        breaks=True,
    ),
    Phase("enter network", namespaces.enter_network, "sockets are born into the namespace of their maker", "forking"),
    Phase("hold network", network.hold, "a packet for a connection that is not there yet gets a reset", "forking"),
    Phase(
        "children",
        lambda session: forking.make_children(session, [step.run for step in BEFORE_CHILDREN]),
        "they inherit what the root has by now: namespaces, mounts",
        "forking",
    ),
    Phase("control groups of the rest", _in_cgroups("enter_all"), "before memory is filled, which counts for them"),
    Phase("the dead", forking.make_zombies, "groups and sessions may need them as leaders until here", "forking"),
    Phase("early aspects", finishing.early, "what must be there before memory and files (EARLY)"),
    Phase("memory", building.memory, "the executable can be set only with no mapping of the old one left", breaks=True),
    Phase(
        "pages to come",
        building.announce,
        "whoever brings them knows all before any of them is waited for",
        breaks=True,
    ),
    Phase("namespaces, late", namespaces.finish, "System V segments to be removed are mapped by now"),
    Phase("directories", building.directories, "the last to use low descriptor numbers for itself"),
    Phase("threads", forking.make_threads, "they share memory, now in place; a pidfd of a thread needs it"),
    Phase("control groups of threads", _in_cgroups("enter_threads"), "the threads are there"),
    Phase("descriptors", building.descriptors, "what was opened for memory or directories is closed by now"),
    Phase("queued", Reached(RestoreStage.QUEUED), "what lies in queues is opened when all have their descriptors"),
    Phase("opened", Reached(RestoreStage.OPENED), "queues have opened the last files"),
    Phase("named", Reached(RestoreStage.NAMED), "of stand-ins nobody who is attached to or told of files may know"),
    Phase("attach", building.attach, "steps that need a description installed in a process, once per description"),
    Phase("file locks", lambda session: locks.restore(session.context), "a lease minds who else has the file open"),
    Phase(
        "after files",
        lambda session: building.each_alive(session, [step.run for step in AFTER_FILES]),
        "steps that need all descriptors of a process, before credentials take privileges away",
    ),
    Phase(
        "leave namespaces",
        namespaces.leave,
        "no more sockets and files are made; a hook finds us at home",
        by_images=False,
    ),
    Phase("connect", namespaces.connect, "a packet that finds its connection missing would be answered by a reset"),
    Phase(
        "threads of the confined",
        confining.make_threads,
        "no privilege, no descriptor and no file of ours is needed in their processes any more; owners need them",
    ),
    Phase("control groups of the confined", _in_cgroups("enter_last_threads"), "now their threads are there, too"),
    Phase("file owners", lambda session: fown.restore(session.context), "a thread can be one; locks change the owner"),
    Phase("aspects", finishing.aspects, "BUILD, CREDENTIALS and SEALED, in one batch a thread"),
    Phase("stops", finishing.stop, "with all threads there; the SIGCHLD that parents get is taken away in the next"),
    Phase("last aspects", finishing.last, "nothing that follows disturbs timers, pending signals, the dumpable flag"),
    Phase(
        "our copies",
        lambda session: session.context.release(),
        "a closed end must read as closed from the start",
        by_images=False,
    ),
    Phase(
        "clear",
        finishing.clear,
        "timers start (ARMED); our memory and our channel go; nothing more can be asked of the puppets",
    ),
    Phase("limits", _in_cgroups("set_properties"), "all that they limit is there, and nothing more is made"),
    Phase(
        "post-restore",
        finishing.notify_ready,
        "all is there, and a hook that says no can still stop it",
        by_images=False,
        breaks=True,
    ),
    Phase(
        "network told",
        network.tell,
        "whoever else holds packets back lets them go before hooks of the tree run",
        by_images=False,
        breaks=True,
    ),
    Phase("tidy", Reached(RestoreStage.TIDY), "link_remap names serve a restore that fails once more"),
    Phase("watched", Reached(RestoreStage.WATCHED), "whoever watches files would be told of what we do to them"),
    Phase(
        "pre-resume",
        finishing.notify_resume,
        "the last word before everyone goes on",
        by_images=False,
        breaks=True,
    ),
    Phase("guard", finishing.guard, "letting go is not one step: our death still has to be the death of all"),
    Phase(
        "frozen groups",
        _in_cgroups("freeze"),
        "their tasks do nothing any more, and are let go all the same",
        by_images=False,
    ),
    Phase("promise", network.promise, "sockets that live would tell peers of the tree's end", by_images=False),
    Phase(
        "connected",
        Reached(RestoreStage.CONNECTED),
        "no task may run with a socket in repair mode; the lock still drops what they send",
        by_images=False,
    ),
    Phase("announce", network.announce, "for the commit to be short", by_images=False),
    Phase("commit", finishing.commit, "one instant: from here on the tree goes on, even if we die", by_images=False),
    Phase(
        "network",
        network.let_go,
        "what comes now is acknowledged, and the images are stale: nobody may end the tree any more",
        by_images=False,
    ),
    Phase("awake", Reached(RestoreStage.UNLOCKED), "what the lock dropped is not waited for", by_images=False),
    Phase("go", finishing.go, "all together, so that none runs while another is only half there", by_images=False),
)

#: However it ends, each whatever becomes of the others.
LAST: tuple[Phase, ...] = (
    Phase("closed", Reached(RestoreStage.CLOSED), "it may use what is closed next"),
    Phase("close", RestoreSession.close, "nothing that is ours is needed any more"),
)
