"""What takes minutes to make for a test is made once, and kept by the content that it is made of."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.skips import missing


def cache_directory() -> Path:
    """Where it is kept: $TORPOR_TEST_CACHE, or a directory below /var/cache."""
    return Path(os.environ.get("TORPOR_TEST_CACHE", "/var/cache/torpor-tests"))


#: Of a recipe's sum, in the directory's name.
_N_DIGITS = 16

#: What this process uses: others leave it alone until we end.
_used: dict[Path, int] = {}


def made(name: str, recipe: bytes, make: Callable[[Path], Path]) -> Path:
    """The directory *name* of this recipe, made now if it is not there.

    Those of other recipes are removed then, if nobody uses them: whoever has been given one does so until it ends.
    *make* is given an empty directory on the same file system, and returns the directory below it that is to be kept.
    """
    cache = cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        missing(f"a place for what tests keep ({error})")
    kept = cache / f"{name}-{hashlib.sha256(recipe).hexdigest()[:_N_DIGITS]}"
    with _locked(cache / f".{name}.lock"):
        if kept not in _used:
            _used[kept] = os.open(_lock_of(kept), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(_used[kept], fcntl.LOCK_SH)
        if not kept.exists():
            for old in cache.glob(f"{name}-{'[0-9a-f]' * _N_DIGITS}"):
                _remove_unused(old)
            with tempfile.TemporaryDirectory(prefix="making-", dir=cache) as work:
                make(Path(work)).rename(kept)
    return kept


def _lock_of(kept: Path) -> Path:
    """The file that those who use it lock, beside it."""
    return kept.with_name(f".{kept.name}.used")


def _remove_unused(old: Path) -> None:
    lock = _lock_of(old)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(old)
        lock.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One test run at a time makes it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
