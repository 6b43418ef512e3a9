"""The standard module ``signal`` with plain numbers: its enumerations take as long to import as ten modules of ours."""

from __future__ import annotations

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from signal import *  # noqa: F403
else:
    from _signal import *  # noqa: F403

#: All that can be blocked, but those of the C library.
ALL = (*range(1, 32), *range(34, 65))
