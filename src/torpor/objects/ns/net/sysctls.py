"""sysctls of a network namespace: those of each interface, and those of the whole.

Kernel view
    ``/proc/sys/net``, which shows the namespace of the thread that looks.
Image
    ``sysctl_entry`` lists in ``net_device_entry`` and ``netns_entry``; the place in the list is the name (CONF4,
    CONF6).  An entry without a value is a sysctl that the kernel does not have.  ``torpor-sysctl-%u.img``, ours: a line
    ``name=value`` for each of the others, those of ``conf`` and ``neigh`` of each interface among them.
Restore
    What is not yet as it was is written; ``forwarding`` before ``accept_redirects``, which it changes.
Limits
    Of ours, what this kernel does not have or want is left out with a warning.  How a bridge calls packet filters
    (``bridge``, of the module br_netfilter) is only carried where it is not as in a new namespace.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import ImageStore
from torpor.kernel.idmap import IdMap

_ROOT = "/proc/sys/net"

#: The order is the image's.
CONF4 = (
    "accept_local", "accept_redirects", "accept_source_route", "arp_accept", "arp_announce", "arp_filter",
    "arp_ignore", "arp_notify", "bootp_relay", "disable_policy", "disable_xfrm", "force_igmp_version", "forwarding",
    "igmpv2_unsolicited_report_interval", "igmpv3_unsolicited_report_interval", "log_martians", "medium_id",
    "promote_secondaries", "proxy_arp", "proxy_arp_pvlan", "route_localnet", "rp_filter", "secure_redirects",
    "send_redirects", "shared_media", "src_valid_mark", "tag", "ignore_routes_with_linkdown", "drop_gratuitous_arp",
    "drop_unicast_in_l2_multicast",
)  # fmt: skip
CONF6 = (
    "accept_dad", "accept_ra", "accept_ra_defrtr", "accept_ra_from_local", "accept_ra_min_hop_limit", "accept_ra_mtu",
    "accept_ra_pinfo", "accept_ra_rt_info_max_plen", "accept_ra_rtr_pref", "accept_redirects", "accept_source_route",
    "autoconf", "dad_transmits", "disable_ipv6", "drop_unicast_in_l2_multicast", "drop_unsolicited_na",
    "force_mld_version", "force_tllao", "forwarding", "hop_limit", "ignore_routes_with_linkdown", "keep_addr_on_down",
    "max_addresses", "max_desync_factor", "mldv1_unsolicited_report_interval", "mldv2_unsolicited_report_interval",
    "mtu", "ndisc_notify", "optimistic_dad", "proxy_ndp", "regen_max_retry", "router_probe_interval",
    "router_solicitation_delay", "router_solicitation_interval", "router_solicitations", "stable_secret",
    "suppress_frag_ndisc", "temp_prefered_lft", "temp_valid_lft", "use_oif_addrs_only", "use_optimistic",
    "use_tempaddr",
)  # fmt: skip
_UNIX = ("max_dgram_qlen",)
_IPV4 = ("ping_group_range",)
_FAMILIES = (("ipv4", CONF4), ("ipv6", CONF6))
_TEXTS = ("stable_secret", "ping_group_range")
_MTU = "mtu"
_NO_GROUP = ("1", "0")
#: What other sysctls there are: all below these but what has its own place in the images or says the same as another.
_OTHERS = ("core", "ipv4", "ipv6", "unix", "netfilter", "mptcp", "sctp", "bridge")
_SAID_TWICE = frozenset(("base_reachable_time", "retrans_time", "unres_qlen"))
_NOT_OTHERS = {
    "unix": frozenset(_UNIX),
    "ipv4": frozenset(_IPV4),
    "ipv4/conf": frozenset(CONF4),
    "ipv6/conf": frozenset(CONF6),
    "ipv4/neigh": _SAID_TWICE,
    "ipv6/neigh": _SAID_TWICE,
}
_AS_IN_A_NEW_ONE = frozenset(
    ("bridge/bridge-nf-call-arptables=1", "bridge/bridge-nf-call-iptables=1", "bridge/bridge-nf-call-ip6tables=1",
     "bridge/bridge-nf-filter-pppoe-tagged=0", "bridge/bridge-nf-filter-vlan-tagged=0",
     "bridge/bridge-nf-pass-vlan-input-dev=0")
)  # fmt: skip
#: Of the link: links.py carries it, and while addresses are made it is another.
_GEN_MODE = "addr_gen_mode"
ALL, DEFAULT = "all", "default"
PER_DEVICE = ("ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh")
_WRITABLE = 0o200
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def read(path: str) -> str | None:
    """Its text, None for one that does not exist or has no value (``stable_secret`` before it is set)."""
    return _read_at(f"{_ROOT}/{path}", None)


def _read_at(name: str, directory: int | None) -> str | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    return _text_of(fd)


def _text_of(fd: int) -> str | None:
    try:
        return os.read(fd, 4096).decode(errors="surrogateescape").strip()
    except OSError:
        return None
    finally:
        os.close(fd)


def write(path: str, value: str) -> None:
    """Set it; OSError where the kernel does not have it or does not like the value."""
    fd = os.open(f"{_ROOT}/{path}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode(errors="surrogateescape"))
    finally:
        os.close(fd)


# -- dump ------------------------------------------------------------------------------------------------------------


def dump_device(entry: m.net_device_entry) -> None:
    """``conf4`` and ``conf6`` of an interface."""
    entry.conf4.extend(_conf("ipv4", entry.name, CONF4))
    entry.conf6.extend(_conf("ipv6", entry.name, CONF6))


def dump_namespace(entry: m.netns_entry, groups_seen: IdMap) -> None:
    """What holds for all interfaces, for new ones, and for the namespace, whose user namespace maps *groups_seen*."""
    entry.all_conf4.extend(_conf("ipv4", "all", CONF4))
    entry.def_conf4.extend(_conf("ipv4", "default", CONF4))
    entry.all_conf6.extend(_conf("ipv6", "all", CONF6))
    entry.def_conf6.extend(_conf("ipv6", "default", CONF6))
    unix = [_entry(name, read(f"unix/{name}")) for name in _UNIX]
    if any(each.HasField("iarg") for each in unix):
        entry.unix_conf.extend(unix)
    groups = _entry(_IPV4[0], read(f"ipv4/{_IPV4[0]}"))
    if groups.HasField("sarg"):
        words = groups.sarg.split()
        if tuple(words) == _NO_GROUP:
            groups.ClearField("sarg")
        else:
            groups.sarg = "\t".join(str(groups_seen.inside(int(word))) for word in words) + "\n"
        entry.ipv4_sysctl.append(groups)


def _conf(family: str, device: str, names: Sequence[str]) -> Iterator[m.sysctl_entry]:
    try:
        directory = os.open(f"{_ROOT}/{family}/conf/{device}", _DIRECTORY)
    except OSError:
        yield from (_entry(name, None) for name in names)  # a kernel without that family
        return
    try:
        # Looked up where they are, which takes half the time: there are hundreds.
        yield from (_entry(name, _read_at(name, directory)) for name in names)
    finally:
        os.close(directory)


def _entry(name: str, value: str | None) -> m.sysctl_entry:
    if name in _TEXTS:
        found = m.sysctl_entry(type=m.SysctlType.CTL_STR)
        if value is not None:
            found.sarg = value
        return found
    found = m.sysctl_entry(type=m.SysctlType.CTL_32)
    if value is not None:
        found.iarg = (int(value.split()[0]) + (1 << 31)) % (1 << 32) - (1 << 31)
    return found


def dump_others(store: ImageStore, ident: int) -> None:
    """All that has no place in CRIU's images."""
    store_lines(store, ident, _iter_others())


def store_lines(store: ImageStore, ident: int, settings: Iterable[tuple[str, str]]) -> None:
    """An image of names and values."""
    lines = [f"{path}={value}\n" for path, value in settings]
    with store.open_write(kinds.TORPOR_SYSCTL.file_name(ident)) as stream:
        stream.write("".join(lines).encode(errors="surrogateescape"))


def read_all() -> dict[str, str]:
    """Name and value of all that can be set in the thread's namespace, but for what is of a link."""
    return {path: value for each in _OTHERS for path, value in _iter_below(each, None, each, _of_a_link)}


def _iter_others() -> Iterator[tuple[str, str]]:
    for directory in _OTHERS:
        for path, value in _iter_below(directory, None, directory, _left_out):
            if f"{path}={value}" not in _AS_IN_A_NEW_ONE:
                yield path, value


def _iter_below(
    path: str, above: int | None, name: str, left_out_of: Callable[[str], frozenset[str]]
) -> Iterator[tuple[str, str]]:
    """What can be read and set below *path*, which is *name* in the directory *above*; with its value.

    The tree stands still meanwhile: names are looked up where they are, and nothing is asked about a file that opening
    it for both does not say.
    """
    try:
        place = f"{_ROOT}/{path}" if above is None else name
        fd = os.open(place, _DIRECTORY, dir_fd=above)
    except OSError:
        return
    left_out = left_out_of(path)
    found: list[tuple[str, bool]] = []
    try:
        with suppress(FileNotFoundError), os.scandir(fd) as entries:
            found += [(each.name, each.is_dir(follow_symlinks=False)) for each in entries]
        # Writing to "all" sets those of each interface, too.
        found.sort(key=lambda each: (each[0] != ALL, each[0] != DEFAULT))
        for each, is_directory in found:
            if is_directory:
                yield from _iter_below(f"{path}/{each}", fd, each, left_out_of)
            elif each not in left_out and (value := _read_setting(each, fd)) is not None and "\n" not in value:
                yield f"{path}/{each}", value
    finally:
        os.close(fd)


def _left_out(path: str) -> frozenset[str]:
    place, _, device = path.rpartition("/")
    found = _NOT_OTHERS.get(path) or _NOT_OTHERS.get(place) or frozenset()
    return found | {_GEN_MODE} if place == "ipv6/conf" and device not in (ALL, DEFAULT) else found


def _of_a_link(path: str) -> frozenset[str]:
    place = path.rpartition("/")[0]
    if place in ("ipv4/neigh", "ipv6/neigh"):
        return _SAID_TWICE
    return frozenset((_GEN_MODE, _MTU)) if place == "ipv6/conf" else frozenset()


def _read_setting(name: str, directory: int) -> str | None:
    """The value of what can be read and set; None for anything else, and for what has none."""
    try:
        fd = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        # As containers have it.  What is of an interface may go away with that.
        with suppress(FileNotFoundError):
            if error.errno == errno.EROFS and os.stat(name, dir_fd=directory).st_mode & _WRITABLE:
                return _read_at(name, directory)
        return None
    return _text_of(fd)


# -- restore ---------------------------------------------------------------------------------------------------------


def restore_namespace(entry: m.netns_entry, groups_seen: IdMap, *, weak: bool) -> None:
    """What holds for all and for new interfaces, before there are any."""
    _write_conf("ipv4/conf/all", CONF4, entry.all_conf4, entry.all_conf, weak)
    _write_conf("ipv4/conf/default", CONF4, entry.def_conf4, entry.def_conf, weak)
    _write_conf("ipv6/conf/all", CONF6, entry.all_conf6, (), weak)
    _write_conf("ipv6/conf/default", CONF6, entry.def_conf6, (), weak)
    _write_conf("unix", _UNIX, entry.unix_conf, (), weak)
    for groups in entry.ipv4_sysctl[:1]:
        if groups.HasField("sarg"):
            words = [str(groups_seen.outside(int(word))) for word in groups.sarg.split()]
            _write_if_other(f"ipv4/{_IPV4[0]}", "\t".join(words), weak)


def restore_device(entry: m.net_device_entry, *, weak: bool) -> None:
    """Those of an interface."""
    _write_conf(f"ipv4/conf/{entry.name}", CONF4, entry.conf4, entry.conf, weak)
    _write_conf(f"ipv6/conf/{entry.name}", CONF6, entry.conf6, (), weak)


def restore_mtu(entry: m.net_device_entry, *, weak: bool) -> None:
    """That of IPv6 once more: an interface that is brought up has its own again."""
    for each in entry.conf6[CONF6.index(_MTU) : CONF6.index(_MTU) + 1]:
        if each.HasField("iarg"):
            _write_if_other(f"ipv6/conf/{entry.name}/{_MTU}", str(each.iarg), weak)


def _write_conf(
    directory: str, names: Sequence[str], entries: Iterable[m.sysctl_entry], old_form: Iterable[int], weak: bool
) -> None:
    values: dict[str, str] = {}
    for name, number in zip(names, old_form, strict=False):
        if number != -1:  # how older images say that there is none
            values[name] = str(number)
    for name, entry in zip(names, entries, strict=False):
        if entry.HasField("iarg"):
            values[name] = str(entry.iarg)
        elif entry.HasField("sarg"):
            values[name] = entry.sarg
    # Changed by writing "forwarding".
    last = values.pop("accept_redirects", None)
    if last is not None:
        values["accept_redirects"] = last
    for name, value in values.items():
        _write_if_other(f"{directory}/{name}", value, weak)


def _write_if_other(path: str, value: str, weak: bool) -> None:
    found = read(path)
    if is_same(found, value):
        return
    try:
        write(path, value)
    except OSError as error:
        if weak:
            log.warn(f"sysctl net/{path} stays {found}: {error.strerror}")
            return
        raise RestoreError(
            f"sysctl net/{path} cannot be set to {value!r}: {error.strerror}",
            hint="--weak-sysctls leaves it as it is",
        ) from error


def restore_others(store: ImageStore, ident: int) -> None:
    """The others, as far as this kernel has them, but for those of interfaces."""
    found = load_lines(store, ident)
    _write_all((place, name, value) for place, name, value, device in found if device in (None, ALL, DEFAULT))


def restore_others_of(store: ImageStore, ident: int, devices: Iterable[str]) -> None:
    """The others of the interfaces *devices*, once there are these."""
    names = frozenset(devices)
    found = load_lines(store, ident)
    _write_all((place, name, value) for place, name, value, device in found if device in names)


def load_lines(store: ImageStore, ident: int) -> Iterator[tuple[str, str, str, str | None]]:
    """(directory, name, value, whose) as such an image has it: an interface, all, those to come; None: of the whole."""
    image = kinds.TORPOR_SYSCTL.file_name(ident)
    if not store.exists(image):
        return
    with store.open_read(image) as stream:
        lines = stream.read().decode(errors="surrogateescape").splitlines()
    known = tuple(f"{each}/" for each in _OTHERS)
    for line in lines:
        path, equals, value = line.partition("=")
        if not equals or not path.startswith(known) or ".." in path:
            log.warn(f"{image}: a line that is none: {line!r}")
            continue
        place, _, name = path.rpartition("/")
        of, _, device = place.rpartition("/")
        yield place, name, value, device if of in PER_DEVICE else None


def _write_all(wanted: Iterable[tuple[str, str, str]]) -> None:
    """Of (directory, name, value) what is another."""
    refused: list[tuple[str, str]] = []
    for place, settings in groupby(wanted, key=lambda setting: setting[0]):
        with ExitStack() as stack:
            directory = None
            with suppress(OSError):  # there is none: each is told
                directory = stack.enter_context(OwnedFd(os.open(f"{_ROOT}/{place}", _DIRECTORY))).fileno()
            for _, name, value in settings:
                if directory is not None and is_same(_read_at(name, directory), value):
                    continue
                try:
                    write(f"{place}/{name}", value)
                except OSError:
                    refused.append((f"{place}/{name}", value))
    write_again(refused)


def write_again(refused: Iterable[tuple[str, str]]) -> None:
    """Once more, when all else is set: no local port may be below ip_unprivileged_port_start.  Or it is told."""
    for path, value in refused:
        _write_if_other(path, value, weak=True)


def is_same(found: str | None, value: str) -> bool:
    """Whether a sysctl has that value: the kernel does not care for the spaces in it."""
    return found is not None and found.split() == value.split()
