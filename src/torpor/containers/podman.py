"""Podman: containers with names, checkpoints as archives or in its own storage, checkpoint images.

A restore that fails leaves a container behind that was only created; what was not there before is removed again.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torpor.base.errors import EngineError, TorporError, UsageError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.containers import archive, changes, foreseen, podman_profile, space
from torpor.containers.commands import command_of, run
from torpor.containers.model import LIST_TIMEOUT_S, RUNNING, Container, Restored, Runtime, Words, matching, option_line
from torpor.images import pack
from torpor.kernel.procfs.task import is_dying

_DUMP_WORDS = frozenset(
    {
        "compress", "create-image", "file-locks", "ignore-rootfs", "ignore-volumes", "keep", "leave-running",
        "pre-checkpoint", "print-stats", "tcp-established", "with-previous",
    }
)  # fmt: skip
_RESTORE_WORDS = frozenset(
    {
        "file-locks", "ignore-rootfs", "ignore-static-ip", "ignore-static-mac", "ignore-volumes", "import-previous",
        "keep", "pod", "print-stats", "publish", "runtime", "tcp-close", "tcp-established",
    }
)  # fmt: skip
#: Where Podman puts, beside a checkpoint, what was in the container's /dev/shm.
SHM_COPY = "devshm-checkpoint.tar"
_ID = re.compile(r"^[0-9a-f]{64}$", re.M)
_OTHER_OPTIONS = "podman has no such option: put it, without the dashes, into /etc/criu/runc.conf"


class Podman:
    """ContainerEngine for Podman, by the command ``podman``."""

    name = "podman"

    def find(self, word: str) -> list[Container]:
        return matching(self.containers(), word)

    def containers(self) -> list[Container]:
        if not command_of(self.name):
            return []
        line = ("ps", "--all", "--no-trunc", "--format", "json")
        found = json.loads(run(self.name, *line, timeout_s=LIST_TIMEOUT_S) or "[]")
        return [self._container(entry) for entry in found or []]

    @staticmethod
    def _container(entry: dict[str, object]) -> Container:
        names, state = entry.get("Names"), str(entry.get("State", ""))
        name = str(names[0]) if isinstance(names, list) and names else str(entry["Id"])[:12]
        pid = entry.get("Pid")
        # The pid of a container that has ended stays in the list.
        known = pid if isinstance(pid, int) and state in RUNNING else 0
        image, pod = str(entry.get("Image", "")), str(entry.get("Pod") or "")
        return Container("podman", name, str(entry["Id"]), state, known, image, pod=pod)

    def about(self, container: Container) -> Runtime:
        told = json.loads(run(self.name, "container", "inspect", container.id))[0]
        config = told.get("OCIConfigPath")
        return Runtime(str(told.get("OCIRuntime") or "runc"), Path(config) if config else None)

    def checkpoint(self, container: Container, output: Path | None, words: Words) -> str:
        if output is not None:
            words = _compressed_as_named(output, words)
        line = option_line(self.name, "checkpoints", words, _DUMP_WORDS, _OTHER_OPTIONS)
        if output is not None and output.is_dir():
            raise UsageError(f"{output} is a directory", hint="podman writes one file: -o FILE.tar.gz")
        told = json.loads(run(self.name, "container", "inspect", "--size", container.id))[0]
        is_lost = bool(told.get("HostConfig", {}).get("AutoRemove"))
        runs_on = any(name == "leave-running" for name, _ in words)
        foreseen.check(container.label, told, to_archive=output is not None, runs_on=runs_on, is_removed=is_lost)
        _check_space(container, told, output, dict(words), is_lost)
        place = _place_of(output) if output is not None else None
        if place is not None:
            line.append(f"--export={place}")
        with ExitStack() as stack:
            left_out = None
            if place is not None and not any(name == "ignore-rootfs" for name, _ in words):
                left_out = stack.enter_context(changes.kept(told, self._changed(container)))
            try:
                # With --rm there is no way back once the container has been stopped.
                said = run(self.name, "container", "checkpoint", *line, container.id, to_its_end=is_lost)
            except BaseException as error:
                error.add_note(self._what_is_left(container, output, place))
                raise
            if place is not None and output is not None:
                try:
                    _put(place, output)
                    if left_out is not None:
                        left_out.add_to(output)
                except BaseException as error:
                    error.add_note(f"{container.label} is in {output if not os.path.lexists(place) else place}")
                    raise
        made = [str(output)] if output is not None else []
        made += [f"the image {value}" for name, value in words if name == "create-image"]
        return _with_statistics(" and ".join(made) or "podman's storage", said, words)

    def foresee(self, container: Container) -> tuple[list[TorporError], list[str]]:
        """What stands in the way of any restore, and what of one from an archive."""
        told = json.loads(run(self.name, "container", "inspect", container.id))[0]
        found = [*foreseen.problems(container.label, told), *foreseen.unit_problems(told)]
        return found, foreseen.losses(told)

    def _changed(self, container: Container) -> list[str]:
        """Paths of files of its image that have been changed in it."""
        found = json.loads(run(self.name, "diff", "--format=json", container.id) or "{}")
        return [str(path) for path in found.get("changed") or ()]

    def _what_is_left(self, container: Container, output: Path | None, place: Path | None) -> str:
        """After a checkpoint that failed: what has become of the container.

        An archive that is torn is removed, and so is one of a container that runs on: an earlier one stays.
        """
        is_written = place is not None and archive.is_whole(place)
        try:
            told = json.loads(run(self.name, "container", "inspect", container.id))[0]
        except (EngineError, ValueError, LookupError):
            told = None
        runs_on = told is not None and str(told.get("State", {}).get("Status", "")) in RUNNING
        if place is not None and output is not None:
            if is_written and not (runs_on and container.pid and not is_dying(Pid(container.pid))):
                _put(place, output)
            else:
                place.unlink(missing_ok=True)
        if told is None:
            if is_written:
                return f"{container.label} is in {output} all the same: `torpor restore {output}` wakes it"
            return f"{container.label} is lost: podman has removed it, for it was started with --rm"
        if runs_on:
            return f"{container.label} runs on"
        stored = Path(str(told.get("StaticDir", "")), "checkpoint")
        if not (stored / "inventory.img").is_file():
            return f"{container.label} has ended, and there is no checkpoint of it"
        return f"{container.label} sleeps in {stored}: `torpor restore {container.label}` wakes it"

    def restore(self, container: Container, words: Words) -> Restored:
        line = option_line(self.name, "restores", words, _RESTORE_WORDS, _OTHER_OPTIONS)
        told = json.loads(run(self.name, "container", "inspect", container.id))[0]
        podman_profile.load(str(told.get("AppArmorProfile") or ""))
        run(self.name, "container", "restore", *line, container.id, to_its_end=True)
        return self._restored(container.id)

    def restore_archive(self, archive: Path, own_name: str, name: str | None, words: Words) -> Restored:
        """Make a container of an archive, called *name* or what it was called, *own_name*."""
        line = option_line(self.name, "restores", words, _RESTORE_WORDS, _OTHER_OPTIONS)
        return self._make([f"--import={archive.absolute()}", *line], own_name, name)

    def restore_image(self, image: str, name: str | None, words: Words) -> Restored:
        """Make a container of a checkpoint image that Podman has."""
        line = option_line(self.name, "restores", words, _RESTORE_WORDS, _OTHER_OPTIONS)
        return self._make([*line, image], "", name)

    def exists(self, name: str) -> bool:
        """Whether there is a container called so, or with that (whole) id.

        Without a list of all: that waits for every container that Podman is at work on, and one that is on its way here
        takes its time.  Nor by ``podman container exists``, which takes a name for the beginning of an id as well.
        """
        if not command_of(self.name):
            return False
        key = "id" if _ID.fullmatch(name) else "name"
        line = ("ps", "--all", "--no-trunc", "--filter", f"{key}=^{re.escape(name)}$", "--format", "json")
        found = json.loads(run(self.name, *line, timeout_s=LIST_TIMEOUT_S) or "[]") or []
        return any(name in (container.name, container.id) for container in map(self._container, found))

    def has_image(self, name: str) -> bool:
        """Whether Podman has an image called so."""
        if not command_of(self.name):
            return False
        try:
            run(self.name, "image", "exists", name)
        except EngineError:
            return False
        return True

    def is_asleep(self, container: Container) -> bool:
        """Whether Podman keeps a checkpoint of it."""
        try:
            return bool(self.stored_checkpoint(container))
        except EngineError:
            return False

    def stored_checkpoint(self, container: Container) -> Path:
        """The directory of the container, with the checkpoint that Podman keeps itself; EngineError without one."""
        told = json.loads(run(self.name, "container", "inspect", container.id))[0]
        place = Path(str(told.get("StaticDir", "")))
        if not (place / "checkpoint").is_dir():
            raise EngineError(f"{container.label} has no checkpoint in podman's storage")
        return place

    def remove(self, container: Container) -> None:
        """Take a container away, running or not."""
        run(self.name, "rm", "--force", "--time=0", "--volumes", container.id)

    def addresses(self, container: Container) -> tuple[str, ...]:
        """Its addresses in all networks."""
        return _addresses(json.loads(run(self.name, "container", "inspect", container.id))[0])

    def _make(self, words: list[str], own_name: str, name: str | None) -> Restored:
        called = name or own_name
        was_there = not called or self.exists(called)
        line = [*words, *([f"--name={name}"] if name else [])]
        podman_profile.load()
        try:
            said = run(self.name, "container", "restore", *line, to_its_end=True)
        except BaseException as error:
            if not was_there:
                self._remove_called(called)
            if isinstance(error, EngineError) and "already in use" in str(error):
                error.hint = f"--name N gives it another one, `podman rm {name or own_name}` makes room"
            raise
        ids = _ID.findall(said)
        if not ids:
            raise EngineError(f"podman restored something, but does not say what: {said.strip()[:200]}")
        return self._restored(ids[-1])

    def _remove_called(self, name: str) -> None:
        """What a failed restore has created; others may have made containers meanwhile, of other names."""
        with suppress(EngineError, ValueError):
            if self.exists(name):
                run(self.name, "rm", "--force", "--time=0", "--volumes", name)

    def _restored(self, ident: str) -> Restored:
        told = json.loads(run(self.name, "container", "inspect", ident))[0]
        state = told.get("State", {})
        container = Container(
            self.name,
            str(told.get("Name", ident)),
            str(told["Id"]),
            str(state.get("Status", "")),
            int(state.get("Pid") or 0),
            str(told.get("ImageName", "")),
        )
        return Restored(replace(container, pid=container.pid if container.runs else 0), _addresses(told))


def _compressed_as_named(output: Path, words: Words) -> Words:
    """With ``--compress`` as the name of the archive has it; UsageError where the user says something else."""
    named, said = pack.compression_of(output), dict(words).get("compress")
    if named is None or said == named:
        return words
    if said is not None:
        raise UsageError(f"{output} is not the name of an archive with --compress={said}", hint="leave out --compress")
    return [*words, ("compress", named)]


def _check_space(
    container: Container, told: dict[str, Any], output: Path | None, words: dict[str, str], is_lost: bool
) -> None:
    """RefusedError if there is no room for what podman is going to write, as far as that can be known."""
    n_bytes = space.memory_of(container.pid)
    if output is not None and "ignore-rootfs" not in words:
        n_bytes += int(told.get("SizeRw") or 0)
    needs = [space.Need(Path(str(told["StaticDir"])), "podman's storage", n_bytes)]
    if output is not None:
        is_compressed = words.get("compress") != "none"
        n_bytes = space.archive_size(n_bytes, is_compressed=is_compressed, is_lost=is_lost)
        needs.append(space.Need(output.absolute().parent, "the archive", n_bytes))
    space.check(container.label, needs, is_lost=is_lost)


def _place_of(output: Path) -> Path:
    """Where the archive is written: what is called *output* is whole, and an earlier one stays till then."""
    place = output.absolute().with_name(f"{output.name}.new")
    if os.path.lexists(place):
        raise UsageError(
            f"{place} is there: a checkpoint whose torpor was killed",
            hint="`torpor inspect` it, then rename or remove it",
        )
    return place


def _addresses(told: dict[str, dict[str, object]]) -> tuple[str, ...]:
    settings = told.get("NetworkSettings") or {}
    networks = settings.get("Networks") or {}
    places = [settings, *(networks.values() if isinstance(networks, dict) else ())]
    found = [str(place.get(key) or "") for place in places for key in ("IPAddress", "GlobalIPv6Address")]
    return tuple(dict.fromkeys(address for address in found if address))


def _put(place: Path, output: Path) -> None:
    """Give the whole archive its name, when it is on the disk."""
    with OwnedFd(os.open(place, os.O_RDONLY | os.O_CLOEXEC)) as made:
        os.fsync(made.fileno())
    place.replace(output)
    with OwnedFd(os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as home:
        os.fsync(home.fileno())


def _with_statistics(made: str, said: str, words: Words) -> str:
    """What ``--print-stats`` adds: JSON, of which the times are of use."""
    if not any(name == "print-stats" for name, _ in words):
        return made
    with suppress(ValueError, LookupError, TypeError):
        told = json.loads(said[said.index("{") :])
        times = told["container_statistics"][0]["criu_statistics"]
        parts = [f"{key.replace('_', ' ')} {value}" for key, value in times.items()]
        return f"{made} (podman {told.get('podman_checkpoint_duration', '?')} us, {', '.join(parts)})"
    return made
