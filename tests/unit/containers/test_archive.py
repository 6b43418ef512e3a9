"""Checkpoint archives: what is read of an honest one, and that a hostile one gives an error and nothing else."""

import bz2
import ctypes
import gzip
import io
import lzma
import random
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from torpor.base.errors import TorporError
from torpor.containers import archive as archive_module
from torpor.containers.archive import Archive, ArchiveStore, peek, read_archive, read_directory
from torpor.containers.overview import name_in, overview_of
from torpor.engine.sets.contents import Checkpoint
from torpor.images.errors import ImageError
from torpor.images.pagemap import Pagemap
from torpor.images.tarstream import open_compressed
from unit.containers import making


def zstd(data: bytes) -> bytes:
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_compressBound.restype = library.ZSTD_compress.restype = ctypes.c_size_t
    library.ZSTD_compressBound.argtypes = (ctypes.c_size_t,)
    library.ZSTD_compress.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
    room = ctypes.create_string_buffer(library.ZSTD_compressBound(len(data)))
    n_bytes = library.ZSTD_compress(room, len(room), data, len(data), 3)
    return room.raw[:n_bytes]


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstd,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.tar.gz"


def read(path: Path) -> tuple[Archive, Checkpoint]:
    archive = read_archive(path)
    return archive, Checkpoint(archive.store)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_an_archive_holds(path: Path, compression: str) -> None:
    path.write_bytes(COMPRESSIONS[compression](making.tar(making.members())))
    archive, checkpoint = read(path)
    found = overview_of(archive)
    assert archive.compression == compression and archive.remarks == []
    assert (found.engine, found.name, found.id, found.runtime) == ("Podman", "web", making.ID, "runc")
    assert (found.image, found.hostname, found.ports) == ("localhost/server:latest", "box", ("8080 to 80/tcp",))
    (network,) = found.networks
    assert (network.interface, network.addresses, network.gateways) == ("eth0", ("10.88.0.7/16",), ("10.88.0.1",))
    assert [(each.name, each.destination, each.size_bytes) for each in found.volumes] == [("data", "/data", 1536)]
    assert found.changed_files == ("etc/motd", "etc/new") and found.deleted_files == ("/etc/old",)
    assert found.checkpointed.startswith("2023-11-14T22:13:20")
    (process,) = checkpoint.processes
    assert (process.pid, process.name, process.executable) == (1, "server", "/bin/server")
    assert process.command == ("/bin/server", "--port", "1")
    assert process.memory_bytes == 8192
    assert checkpoint.environment_of(1) == ("HOME=/", "SECRET=x")
    assert [(each.number, each.target) for each in process.descriptors] == [(3, "/data")]


def test_zstd_gives_everything_that_little_input_stands_for(path: Path) -> None:
    """The last bytes of input may stand for more than one buffer of output."""
    whole = bytes(3_000_000) + random.Random(1).randbytes(300_000)
    path.write_bytes(zstd(whole) + zstd(b"and another frame"))
    with open_compressed(path) as (stream, name):
        found = b""
        while piece := stream.read(70_000):
            found += piece
    assert name == "zstd" and found == whole + b"and another frame"


def test_a_peek_ends_before_the_images(path: Path) -> None:
    whole = making.tar(making.members())
    path.write_bytes(whole[: whole.index(b"checkpoint/core-1.img") + 600])
    assert name_in(peek(path)) == "web"
    with pytest.raises(ImageError, match="cut off"):
        read_archive(path)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_one_that_is_cut_off_is_an_error(path: Path, compression: str) -> None:
    whole = COMPRESSIONS[compression](making.tar(making.members()))
    for length in {0, 1, 100, 511, len(whole) // 3, len(whole) // 2}:
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_names_that_lead_out_are_passed_over_and_nothing_is_written(path: Path, tmp_path: Path) -> None:
    evil = ["/etc/passwd", "../../escape", "checkpoint/../config.dump", "a/../../b", "config.dump/../../x"]
    path.write_bytes(making.tar([*[(name, b"evil") for name in evil], *making.members()]))
    archive, checkpoint = read(path)
    assert overview_of(archive).name == "web" and checkpoint.processes[0].name == "server"
    assert len(archive.remarks) == len(evil) and all("leads out" in remark for remark in archive.remarks)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_links_and_devices_are_passed_over(path: Path) -> None:
    made = io.BytesIO(making.tar(making.members()))
    with tarfile.open(fileobj=made, mode="a") as archive:
        for name, kind in (("config.dump", tarfile.SYMTYPE), ("checkpoint", tarfile.LNKTYPE), ("x", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/shadow"
            archive.addfile(info)
    path.write_bytes(made.getvalue())
    found = read_archive(path)
    assert overview_of(found).name == "web"
    assert len(found.remarks) == 3


def test_sizes_are_not_believed(path: Path) -> None:
    honest = making.tar(making.members())
    for size in (b"77777777777\0", b"\x80" + (1 << 62).to_bytes(11, "big"), b"\xff" * 12, b"9999zzzz\0\0\0\0", b"-1"):
        block = bytearray(honest[:512])
        block[124:136] = size.ljust(12, b"\0")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        path.write_bytes(bytes(block) + honest[512:])
        with pytest.raises(ImageError):
            read_archive(path)


@pytest.mark.parametrize(
    "record", ["21 size=²", "9" * 6000, "5011 size=" + "9" * 5000, "0 path=a", f"6011 path={'a' * 6000}"]
)
def test_numbers_and_names_in_extended_headers_are_not_believed(path: Path, record: str) -> None:
    data = record.encode() + b"\n"
    head = tarfile.TarInfo("x")
    head.type, head.size = tarfile.XHDTYPE, len(data)
    begin = head.tobuf(tarfile.USTAR_FORMAT) + data.ljust(-len(data) // 512 * -512, b"\0")
    path.write_bytes(begin + making.tar(making.members()))
    with pytest.raises(ImageError):
        read_archive(path)


def test_a_time_is_one_or_none(path: Path) -> None:
    made = bytearray(making.tar([*making.members()]))
    for at in range(0, len(made), 512):
        if made[at + 257 : at + 262] == b"ustar":
            made[at + 136 : at + 148] = b"\x80" + b"\xff" * 11
            made[at + 148 : at + 156] = b" " * 8
            made[at + 148 : at + 156] = b"%06o\0 " % sum(made[at : at + 512])
    path.write_bytes(made)
    assert read_archive(path).written == 0


def test_a_bomb_takes_no_memory(path: Path) -> None:
    """64 MiB of zeroes in the pages, in a document, and as an extended header."""
    zeroes = bytes(64 << 20)
    entries = [*making.members(), ("checkpoint/pages-2.img", zeroes)]
    for more, is_refused in (([], False), ([("spec.dump", zeroes)], True), ([("x" * (2 << 20), b"")], True)):
        path.write_bytes(gzip.compress(making.tar([*entries, *more]), 1))
        tracemalloc.start()
        try:
            if is_refused:
                with pytest.raises(ImageError, match="believed"):
                    read_archive(path)
            else:
                assert read_archive(path).pages_bytes == 8192 + len(zeroes)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


def test_a_dictionary_of_gigabytes_takes_no_memory(path: Path) -> None:
    """What a stream of xz says of itself; it is refused before anything is read."""
    data = bytearray(lzma.compress(making.tar(making.members())))
    size = (data[12] + 1) * 4
    assert data[14:16] == b"\x21\x01"  # LZMA2, with a byte for its dictionary's size
    data[16] = 40
    data[8 + size : 12 + size] = struct.pack("<I", zlib.crc32(data[12 : 8 + size]))
    path.write_bytes(data)
    with pytest.raises(ImageError, match="limit"):
        read_archive(path)


def test_streams_of_xz_may_follow_each_other(path: Path) -> None:
    data = making.tar(making.members())
    path.write_bytes(lzma.compress(data[:5000]) + bytes(8) + lzma.compress(data[5000:]) + bytes(4))
    assert read(path)[1].processes[0].name == "server"


@pytest.mark.parametrize("compression", ["gzip", "xz", "bzip2", "zstd"])
@pytest.mark.parametrize("is_cut", [True, False])
def test_damage_in_a_compressed_image_is_an_error_of_ours(path: Path, compression: str, is_cut: bool) -> None:
    whole = COMPRESSIONS[compression](random.Random(1).randbytes(50_000))
    data = whole[:20_000] if is_cut else whole[:8] + b"\xff" * 100 + whole[108:]
    path.write_bytes(making.tar([*making.members(), ("checkpoint/pages-7.img.zst", data)]))
    with pytest.raises(ImageError):
        read_archive(path)


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"3", b'{"name": 7, "id": [], "namedVolumes": {}}', b"[" * 100_000, b'{"a":', b"\xff\xfe"]
)
def test_documents_of_another_form_are_empty_or_an_error(path: Path, document: bytes) -> None:
    for name in ("config.dump", "spec.dump", "network.status", "deleted.files", "stats-dump"):
        others = [(each, data) for each, data in making.members() if each != name]
        path.write_bytes(making.tar([(name, document), *others]))
        archive, _ = read(path)
        try:
            overview_of(archive)
        except ImageError as error:
            assert str(path) in str(error)


def test_damage_anywhere_is_an_error_of_ours(path: Path) -> None:
    honest = making.tar(making.members())
    dice = random.Random(8)
    for _ in range(150):
        damaged = bytearray(honest)
        for _ in range(dice.choice((1, 3, 20))):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            archive, checkpoint = read(path)
            overview_of(archive)
            _ = checkpoint.processes, checkpoint.sockets, checkpoint.needs
        except TorporError:
            continue


def test_a_directory_is_an_unpacked_archive_or_has_images_in_it(tmp_path: Path) -> None:
    for name, data in making.members():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    archive, images = read_directory(tmp_path)
    assert overview_of(archive).name == "web" and images == tmp_path / "checkpoint"
    archive, images = read_directory(images)
    assert not archive.documents and images == tmp_path / "checkpoint"
    with Checkpoint(images) as checkpoint:
        assert checkpoint.processes[0].command == ("/bin/server", "--port", "1")


def test_several_checkpoints_in_a_directory_are_an_error(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inventory.img").touch()
    with pytest.raises(ImageError, match="several"):
        read_directory(tmp_path)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_an_exported_image_holds_a_checkpoint_in_one_of_its_blobs(path: Path, compression: str) -> None:
    """Podman's checkpoint images hold an archive, containerd's the images alone."""
    whole = making.tar(making.members())
    alone = making.tar(sorted(making.images().items()))
    for blob, has_config in ((whole, True), (alone, False)):
        layer = COMPRESSIONS[compression](blob)
        blobs = [b'{"schemaVersion": 2}', COMPRESSIONS[compression](making.tar([("bin/sh", b"#!")])), layer]
        entries = [(f"blobs/sha256/{number:064}", data) for number, data in enumerate(blobs)]
        path.write_bytes(making.tar([*entries, ("index.json", b"{}")]))
        archive, checkpoint = read(path)
        assert checkpoint.processes[0].command == ("/bin/server", "--port", "1")
        assert ("config.dump" in archive.documents) == has_config and archive.remarks == []


def test_what_is_done_does_not_grow_with_the_square_of_the_images(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_read = []
    load = ArchiveStore.map_of

    def counted(store: ArchiveStore, ident: int) -> Pagemap:
        n_read.append(ident)
        return load(store, ident)

    monkeypatch.setattr(ArchiveStore, "map_of", counted)
    members = making.members()
    pagemap = next(data for name, data in members if name.startswith("checkpoint/pagemap-"))
    counts = []
    for n_images in (50, 200):
        more = [(f"checkpoint/pagemap-{1000 + each}.img", pagemap) for each in range(n_images)]
        more += [(f"checkpoint/pages-{2000 + each}.img", b"") for each in range(n_images)]
        path.write_bytes(making.tar([*members, *more]))
        n_read.clear()
        read_archive(path)
        counts.append(len(n_read))
    assert counts[1] < 6 * counts[0]


def test_volumes_and_command_lines_are_kept_up_to_a_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_MAX_VOLUMES", 3)
    path.write_bytes(making.tar([*making.members(), *((f"volumes/v{each}.tar", b"") for each in range(9))]))
    archive, _ = read(path)
    assert len(archive.volumes) == 3 and any("more than 3 volumes" in remark for remark in archive.remarks)
    kept = archive.store.n_strings
    monkeypatch.setattr(archive_module, "_MAX_LINES", kept - 1)
    assert 0 < kept == _n_strings(archive) > _n_strings(read_archive(path))


def _n_strings(archive: Archive) -> int:
    return sum(len(data) for pages in archive.store.pages.values() for _, data in pages.ranges)
