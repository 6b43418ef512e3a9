"""Message classes: names, constants, unknown fields, and what their import costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import parse_message, serialize


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_message_is_built_and_parsed() -> None:
    core = m.core_entry(mtype=m.core_entry.X86_64)
    core.tc.comm = "sh"
    assert core.HasField("tc") and not core.HasField("ids")
    assert m.core_entry.FromString(core.SerializePartialToString()).tc.comm == "sh"
    assert isinstance(core, m.Message)


def test_enums_and_defaults() -> None:
    assert (m.fd_types.REG, m.fd_types.AUTOFS_PIPE) == (1, 65535)
    assert m.core_entry.march.AARCH64 == m.core_entry.AARCH64 == 3
    assert m.fd_types.Name(2) == "PIPE"
    opts = m.criu_opts()
    assert (opts.images_dir_fd, opts.log_level, opts.cpu_cap, opts.network_lock) == (-1, 2, 0xFFFFFFFF, 1)
    assert m.reg_file_entry().mnt_id == -1


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no_such_entry"):
        getattr(m, "no_such_entry")  # noqa: B009


def test_unknown_fields_are_kept() -> None:
    known = m.fs_entry(cwd_id=1, root_id=2).SerializeToString()
    newer = known + b"\xa2\x06\x03new" + b"\xa8\x06\x07"
    assert parse_message(m.fs_entry, newer, "fs").SerializeToString() == newer


def test_a_message_without_a_required_field_is_an_image_error() -> None:
    with pytest.raises(ImageError, match=r"fs-1\.img: entry 0.*root_id"):
        parse_message(m.fs_entry, b"\x08\x01", "fs-1.img")
    with pytest.raises(ImageError, match="cwd_id"):
        serialize(m.fs_entry(), "fs-1.img")


def test_the_public_package_is_not_imported() -> None:
    loaded = run(
        "import sys; from torpor.images import messages as m; m.core_entry(mtype=1).tc.comm = 'x'\n"
        "print(*[n for n in sys.modules if n in ('google.protobuf.descriptor_pool', 'google.protobuf.descriptor',"
        " 'google.protobuf.internal.well_known_types', 'datetime', 'dataclasses')])"
    )
    assert loaded == ""


def test_well_known_types_work_after_us() -> None:
    code = (
        "from torpor.images import messages as m; m.vma_entry()\n"
        "from google.protobuf import timestamp_pb2, struct_pb2\n"
        "t = timestamp_pb2.Timestamp(); t.FromSeconds(5); s = struct_pb2.Struct(); s['a'] = 3\n"
        "print(t.ToJsonString(), s['a'], m.fs_entry(cwd_id=1).cwd_id)"
    )
    assert run(code) == "1970-01-01T00:00:05Z 3.0 1"


def test_the_public_api_stands_in_for_the_core() -> None:
    code = (
        "from torpor.images import _registry as r\n"
        "class Gone:\n    def __init__(self): raise ImportError\n"
        "r._CorePool = Gone\n"
        "from torpor.images import messages as m\n"
        "e = m.core_entry(mtype=1); e.tc.comm = 'x'; print(e.tc.comm, m.fd_types.REG, type(r.open_pool()).__name__)"
    )
    assert run(code) == "x 1 _PublicPool"
