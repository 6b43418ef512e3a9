"""Messages as JSON structures."""

from __future__ import annotations

import json

import pytest

from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.dump_text import entry_to_json, image_to_json
from torpor.images.kinds import ImageKind
from unit.images.filling import entries_of


def test_set_fields_only() -> None:
    tty = m.tty_data_entry(tty_id=3, data=b"abc")
    assert entry_to_json(tty) == {"tty_id": 3, "data": "YWJj"}
    core = m.core_entry(mtype=m.core_entry.X86_64)
    core.tc.comm = "sh"
    assert entry_to_json(core) == {"mtype": "X86_64", "tc": {"comm": "sh"}}
    assert entry_to_json(m.pstree_entry(pid=1, ppid=0, pgid=1, sid=1, threads=[1, 2]))["threads"] == [1, 2]


@pytest.mark.parametrize("kind", [k for k in kinds.ALL if k.magic is not None], ids=lambda kind: kind.name)
def test_every_kind_is_json(kind: ImageKind[m.Message]) -> None:
    assert json.loads(json.dumps(image_to_json(entries_of(kind))))
