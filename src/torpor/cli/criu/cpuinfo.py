"""``criu cpuinfo dump`` and ``criu cpuinfo check``: whether this processor can take over what another one did."""

from __future__ import annotations

from pathlib import Path

from torpor.base.errors import UsageError
from torpor.base.exchanging import exchange
from torpor.cli.criu.options import Options
from torpor.images.errors import ImageMissing, StoreError
from torpor.images.kinds import CPUINFO
from torpor.images.stores.memory import MemStore
from torpor.images.stores.opening import open_store
from torpor.objects.arch import caps, cpu


def main(options: Options) -> int:
    """Write cpuinfo.img, or compare it with this machine; 0 when this machine will do."""
    if options.command not in (["dump"], ["check"]):
        raise UsageError("criu cpuinfo needs to know what to do", hint="criu cpuinfo dump, or criu cpuinfo check")
    run(options.command[0], options)
    return 0


def run(action: str, options: Options) -> None:
    """*action* is ``dump`` or ``check``; RestoreError where this machine will not do, StoreError for a full disk."""
    if action == "dump":
        _dump(options.images_dir)
        return
    with open_store(options.images_dir) as store:
        if not store.exists(CPUINFO.file_name()):
            raise ImageMissing(f"{CPUINFO.file_name()} is not there", hint="criu cpuinfo dump writes it")
        cpu.check(store, options.cpu_cap or caps.DEFAULT)


def _dump(directory: str) -> None:
    """An earlier image is there until this one is complete."""
    name = CPUINFO.file_name()
    made = MemStore()
    cpu.dump(made)
    try:
        exchange(Path(directory, name), bytes(made.images[name]), 0o600)
    except OSError as error:
        raise StoreError(f"{directory}/{name}: cannot be written: {error.strerror}") from error
