"""The numbers of kernel/uapi are the headers', and nobody else types one of them."""

import ast
import importlib
import pkgutil
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from harness.program import need
from harness.skips import missing
from torpor.kernel import uapi

INCLUDE = Path("/usr/include")
#: A name of uapi's that the installed headers are too old for, and since which Linux there is one.
NEWER: dict[str, str] = {
    "BPF_TCX_EGRESS": "6.6",
    "BPF_TCX_INGRESS": "6.6",
    "PR_FUTEX_HASH": "6.16",
    "PR_FUTEX_HASH_GET_SLOTS": "6.16",
    "PR_FUTEX_HASH_SET_SLOTS": "6.16",
    "SO_PASSPIDFD": "6.5",
    "SO_PASSRIGHTS": "6.16",
    "TUN_F_USO4": "6.2",
    "TUN_F_USO6": "6.2",
    "UFFDIO_POISON": "6.6",
    "UFFD_FEATURE_POISON": "6.6",
    "UFFD_FEATURE_WP_ASYNC": "6.7",
    "UFFD_FEATURE_WP_UNPOPULATED": "6.4",
}
#: What headers use and do not include: how numbers of ioctl(2) are made, and of what structures' sizes.
MEANT = ("stdio.h", "asm/ioctl.h", "asm/ioctls.h", "asm/termbits.h")
#: Modules that are a header's in all but name: its numbers beside what is done with them.
HOMES: dict[str, tuple[str, ...]] = {
    "kernel/kcmp.py": ("linux/kcmp.h",),
    "kernel/mount.py": ("linux/mount.h", "linux/fcntl.h"),
    "kernel/namespaces.py": ("linux/sched.h",),
    "kernel/netlink.py": ("linux/netlink.h",),
    "kernel/nftables.py": ("linux/netfilter/nf_tables.h", "linux/netfilter/nfnetlink.h"),
    "kernel/openat2.py": ("linux/openat2.h",),
    "kernel/pagemap.py": ("linux/fs.h",),
    "kernel/ptrace.py": ("linux/ptrace.h",),
    "kernel/rtnetlink.py": ("linux/rtnetlink.h", "linux/if_link.h", "linux/if.h"),
    "kernel/sock_diag.py": ("linux/inet_diag.h", "linux/unix_diag.h", "linux/sock_diag.h"),
}
_HEADER = re.compile(r"``([\w/.-]+\.h)``")


def constants(text: str) -> dict[str, int]:
    """The plain numbers that a module assigns to names, without the underscore of private ones."""
    found = {}
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target, value = node.targets[0], node.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=True))
        for name, number in pairs:
            kinds = (ast.Constant, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop)
            if isinstance(name, ast.Name) and all(isinstance(each, kinds) for each in ast.walk(number)):
                result = eval(compile(ast.Expression(number), "number", "eval"))
                if isinstance(result, int) and name.id.isupper():
                    found[name.id.lstrip("_")] = result
    return found


def groups(repository: Path) -> Iterator[tuple[str, tuple[str, ...], dict[str, int]]]:
    """Module, its headers, its numbers."""
    root = repository / "src" / "torpor"
    for module in pkgutil.iter_modules(uapi.__path__):
        text = (root / "kernel" / "uapi" / f"{module.name}.py").read_text()
        headers = tuple(_HEADER.findall(importlib.import_module(f"torpor.kernel.uapi.{module.name}").__doc__ or ""))
        yield f"kernel/uapi/{module.name}.py", headers, constants(text)
    for name, headers in HOMES.items():
        yield name, headers, constants((root / name).read_text())


def words_of(header: str) -> frozenset[str]:
    """Every name that stands in a header; enumerators are not seen by the preprocessor."""
    places = [INCLUDE / header, INCLUDE / "x86_64-linux-gnu" / header]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        missing(f"the header {header} (Debian: libc6-dev)")
    text = path.read_text(errors="replace")
    if header == "sys/socket.h":
        text += "".join(each.read_text() for each in (INCLUDE / "x86_64-linux-gnu/bits").glob("socket*.h"))
    return frozenset(re.findall(r"\b[A-Z][A-Z0-9_]+\b", text))


def by_the_headers(
    all_groups: list[tuple[str, tuple[str, ...], dict[str, int]]], tmp_path: Path
) -> list[dict[str, int]]:
    """What the headers say of each group's names; one run of the compiler for all, each group a file of its own."""
    compiler = need("gcc")
    sources, calls = [], []
    for index, (_, headers, numbers) in enumerate(all_groups):
        known = frozenset().union(*(words_of(header) for header in headers))
        lines = ["#define _GNU_SOURCE", *[f"#include <{header}>" for header in (*MEANT, *headers)]]
        lines += [f"void group_{index}(void) {{"]
        for name in numbers:
            tell = f'printf("{index} {name} %lld\\n", (long long)({name}));'
            lines += [f"#if defined {name} || {int(name in known)}", tell, "#endif"]
        source = tmp_path / f"group_{index}.c"
        source.write_text("\n".join([*lines, "}", ""]))
        sources.append(source)
        calls.append(f"void group_{index}(void); group_{index}();")
    main, program = tmp_path / "main.c", tmp_path / "numbers"
    main.write_text("int main(void) { " + "\n".join(calls) + " return 0; }\n")
    subprocess.run([compiler, "-w", "-o", program, main, *sources], check=True)
    told: list[dict[str, int]] = [{} for _ in all_groups]
    for line in subprocess.run([program], capture_output=True, check=True, text=True).stdout.splitlines():
        number, name, value = line.split()
        told[int(number)][name] = int(value)
    return told


def test_the_numbers_are_the_headers(repository: Path, tmp_path: Path) -> None:
    all_groups = list(groups(repository))
    told = by_the_headers(all_groups, tmp_path)
    wrong, unknown = [], []
    n_compared = 0
    for (module, headers, numbers), there in zip(all_groups, told, strict=True):
        assert headers, f"{module} names no header"
        for name, value in numbers.items():
            if name in there:
                n_compared += 1
                mask = (1 << 64) - 1
                wrong += [f"{module}: {name} = {value}, not {there[name]}"] if (value ^ there[name]) & mask else []
            elif "/uapi/" in module and name not in NEWER:
                unknown.append(f"{module}: {name}")
    assert not wrong, "\n".join(wrong)
    assert not unknown, "\n".join(["in none of the headers that their modules name:", *unknown])
    assert n_compared > 350


def test_a_number_is_typed_once(repository: Path) -> None:
    all_groups = list(groups(repository))
    typed = Counter(name for _, _, numbers in all_groups for name in numbers)
    ours = {"ROOM", "NESTED"}
    assert not [name for name, count in typed.items() if count > 1 and name not in ours]


def test_what_uapi_has_nobody_else_types(repository: Path) -> None:
    root = repository / "src" / "torpor"
    at_home = {name: module for module, _, numbers in groups(repository) for name in numbers if "/uapi/" in module}
    found = []
    for path in sorted(root.rglob("*.py")):
        name = str(path.relative_to(root))
        if not name.startswith(("kernel/uapi/", "kernel/arch/", "objects/arch/")):
            found += [
                f"{name}: {each} is in {at_home[each]}" for each in constants(path.read_text()) if each in at_home
            ]
    assert not found, "\n".join(found)


#: By the level as it is written: the headers that name its options, and what these names begin with.
LEVELS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "socket.SOL_SOCKET": (("sys/socket.h",), ("SO_",)),
    "socket.IPPROTO_IP": (("linux/in.h",), ("IP_", "")),
    "socket.IPPROTO_IPV6": (("linux/in6.h", "linux/in.h"), ("IPV6_", "")),
    "socket.IPPROTO_TCP": (("linux/tcp.h",), ("TCP_",)),
    "socket.IPPROTO_UDP": (("linux/udp.h",), ("UDP_",)),
    "SOL_NETLINK": (("linux/netlink.h",), ("NETLINK_",)),
    "SOL_PACKET": (("linux/if_packet.h",), ("PACKET_",)),
}
#: What the installed headers are too old for, since which Linux they have it; and what has no name there.
NEWER_OPTIONS = {
    "SO_PASSPIDFD": "6.5", "SO_PASSRIGHTS": "6.16", "SO_RCVPRIORITY": "6.14", "SO_INQ": "6.17",
    "IP_LOCAL_PORT_RANGE": "6.3", "TCP_RTO_MAX_MS": "6.15", "TCP_RTO_MIN_US": "6.15", "TCP_DELACK_MAX_US": "6.15",
    "PACKET_VNET_HDR_SZ": "6.4",
}  # fmt: skip


def test_the_options_of_sockets_are_the_headers(repository: Path, tmp_path: Path) -> None:
    """What the table of opaque options calls its numbers."""
    tree = ast.parse((repository / "src/torpor/objects/files/socket/option_tables.py").read_text())
    wanted: list[tuple[str, tuple[str, ...], dict[str, int]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_of_level":
            headers, prefixes = LEVELS.get(ast.unparse(node.args[0]), ((), ()))
            known = frozenset().union(*(words_of(header) for header in headers)) if headers else frozenset()
            numbers = {}
            for keyword in node.keywords:
                # Of an older RFC: IPV6_2292PKTINFO.
                plain = "".join(reversed((keyword.arg or "").partition("_2292"))).removeprefix("_")
                names = [f"{prefix}{plain}" for prefix in prefixes]
                if names and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, int):
                    name = next((each for each in names if each in known), names[0])
                    numbers[name] = keyword.value.value
            wanted.append((f"line {node.lineno}", headers, numbers))
    told = by_the_headers(wanted, tmp_path)
    wrong, unknown = [], []
    for (line, _, numbers), there in zip(wanted, told, strict=True):
        wrong += [f"{line}: {name} = {n}, not {there[name]}" for name, n in numbers.items() if there.get(name, n) != n]
        unknown += [name for name in numbers if name not in there and name not in NEWER_OPTIONS]
    assert not wrong, "\n".join(wrong)
    assert not unknown, unknown
    assert sum(map(len, told)) > 90
