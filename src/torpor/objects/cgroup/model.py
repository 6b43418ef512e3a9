"""What a dump or a restore is told of control groups, and how hierarchies are named.

A *hierarchy* is a tree of control groups.  Its name is what /proc/PID/cgroup says of it: the controllers of v1
(``cpu,cpuacct``), ``name=systemd`` for one of v1 without controllers, and nothing at all for v2.
"""

from __future__ import annotations

from torpor.base.records import dataclass
from torpor.images.errors import ImageError

#: The modes of criu(8)'s ``--manage-cgroups``.
IGNORE, NONE, PROPS, SOFT, FULL, STRICT = "ignore", "none", "props", "soft", "full", "strict"
#: What CRIU does where nobody says anything.
DEFAULT = SOFT

V2 = ""


@dataclass(frozen=True, slots=True)
class CgroupPolicy:
    """``mode`` is one of the above.  With IGNORE, control groups are neither looked at nor made.

    ``roots``: directories for a hierarchy (of one of its controllers' names; None: for all others), from which a dump
    collects, and into which a restore puts what was collected.  ``props`` and ``props_file``: further properties, in
    the form of criu(8).  ``controllers``: the only ones that a dump carries, if there are any.  ``yard``: a directory
    with all hierarchies mounted.  ``freezer``: the control group by which the tree is stopped.
    """

    mode: str = IGNORE
    roots: tuple[tuple[str | None, str], ...] = ()
    props: str = ""
    props_file: str = ""
    controllers: tuple[str, ...] = ()
    yard: str = ""
    freezer: str = ""

    def root_of(self, hierarchy: str) -> str | None:
        """The directory that stands for the root of what is carried of *hierarchy*, if one is said."""
        names = hierarchy.split(",")
        fallback = None
        for name, path in self.roots:
            if name is None:
                fallback = normal(path)
            elif name in names or name == hierarchy:
                return normal(path)
        return fallback


def normal(path: str) -> str:
    """*path* with one slash at its start, none at its end, none twice."""
    return "/" + "/".join(word for word in path.split("/") if word)


def is_below(path: str, top: str) -> bool:
    """Whether *path* is *top* or lies below it."""
    return top in ("/", path) or path.startswith(top + "/")


def check_hierarchy(name: str) -> None:
    """ImageError for what is no hierarchy's name: it becomes words of mount options and a name in ``--cgroup-yard``.

    An option such as ``release_agent=PROGRAM`` would have the kernel run that program for us.
    """
    for word in name.split(",") if name else ():
        bare = word.removeprefix("name=")
        if not bare.isascii() or not bare.replace("_", "").replace("-", "").replace(".", "").isalnum() or ".." in bare:
            raise ImageError(f"cgroup.img: {word!r} is no controller's name")


def describe(hierarchy: str) -> str:
    """A hierarchy's name for people."""
    return hierarchy or "v2"


def describe_group(hierarchy: str, path: str) -> str:
    """A group for messages, with its hierarchy: ``/a/b (cpu,cpuacct)``."""
    return f"{path} ({describe(hierarchy)})"
