"""What each command of criu is for: for ``criu --help`` and the manual page, off the engine's path."""

from __future__ import annotations

#: Command and what it does.
COMMANDS = {
    "dump": "put a process and everything below it into image files",
    "restore": "rebuild what the image files hold",
    "check": "whether the kernel has what is needed",
    "cpuinfo": "write what the processor can do (cpuinfo dump), or compare it (cpuinfo check)",
    "service": "answer requests by RPC on a socket",
    "swrk": "answer them on an open descriptor, as container runtimes ask for it",
    "pre-dump": "copy the memory of processes that run on, for a dump that leans on it",
    "page-server": "take the pages of one dump on another host (dump --page-server) into the images directory",
    "lazy-pages": "bring the memory of a tree that is restored with --lazy-pages while it runs",
    "dedup": "take out of images what those made after them have themselves",
}
