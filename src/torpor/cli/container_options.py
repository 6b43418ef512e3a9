"""Options of ``torpor checkpoint`` and ``torpor restore`` that are passed to a container's engine, in its own words."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from torpor.base.errors import UsageError

#: Option and what its value is called ("" for a switch), and what the help says.
CHECKPOINT = {
    "keep": ("", "keep the log and other temporary files (podman)"),
    "ignore-rootfs": ("", "without what changed in its root file system (podman)"),
    "ignore-volumes": ("", "without its volumes (podman)"),
    "compress": ("HOW", "zstd, gzip or none (podman); of a process or job, its memory: zstd or none"),
    "create-image": ("NAME", "make an image of the checkpoint (podman)"),
    "print-stats": ("", "say how long what took (podman)"),
    "pre-checkpoint": ("", "memory only, and the container runs on (podman)"),
    "with-previous": ("", "on top of a pre-checkpoint (podman)"),
    "tcp-skip-in-flight": ("", "without TCP connections not accepted yet (runc)"),
    "manage-cgroups-mode": ("MODE", "what to do with cgroups (runc)"),
    "empty-ns": ("KIND", "a namespace without its contents (runc)"),
}
RESTORE = {
    "keep": ("", "keep the log and other temporary files (podman)"),
    "ignore-rootfs": ("", "without what changed in the root file system (podman)"),
    "ignore-static-ip": ("", "not with its static address (podman)"),
    "ignore-static-mac": ("", "not with its static hardware address (podman)"),
    "ignore-volumes": ("", "without its volumes (podman)"),
    "import-previous": ("FILE", "the pre-checkpoint that the archive builds upon (podman)"),
    "pod": ("NAME", "into a pod (podman)"),
    "publish": ("PORTS", "publish ports (podman)"),
    "print-stats": ("", "say how long what took (podman)"),
    "checkpoint": ("NAME", "which of a container's checkpoints (docker, containerd)"),
    "console-socket": ("PATH", "where the terminal goes (runc)"),
    "manage-cgroups-mode": ("MODE", "what to do with cgroups (runc)"),
    "empty-ns": ("KIND", "a namespace without its contents (runc)"),
}
#: Names that torpor has for options of runc's.
_IN_ENGINES_WORDS = {"external-unix": "ext-unix-sk"}


def add(parser: argparse.ArgumentParser, options: Mapping[str, tuple[str, str]]) -> None:
    """The options as a group of their own."""
    group = parser.add_argument_group("for containers, passed on to the engine")
    for name, (value, text) in options.items():
        if value:
            group.add_argument(f"--{name}", metavar=value, help=text)
        else:
            group.add_argument(f"--{name}", action="store_true", help=text)


def given(args: argparse.Namespace, names: Mapping[str, object] | tuple[str, ...]) -> list[tuple[str, str]]:
    """Those of *names* that the command line has, with their values."""
    found: list[tuple[str, str]] = []
    for name in names:
        value = getattr(args, name.replace("-", "_"))
        if value:
            found.append((_IN_ENGINES_WORDS.get(name, name), value if isinstance(value, str) else ""))
    return found


def refuse(args: argparse.Namespace, names: Mapping[str, object] | tuple[str, ...], what: str) -> None:
    """UsageError if the command line has one of *names*, which are of no use for *what*."""
    if found := given(args, names):
        raise UsageError(f"--{found[0][0]} is of no use for {what}")
