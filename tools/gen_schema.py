#!/usr/bin/env python3
"""Makes the image layer's descriptors and types from the schema.

Reads ``src/torpor/images/schema/*.txt`` (their form is told at their top) and writes, beside that folder,
``_descriptors.py`` (a serialized FileDescriptorProto) and ``messages.pyi`` (static types). Needs neither protoc nor
protobuf: the few messages that describe messages are encoded here.

usage: gen_schema.py [--check]      --check: writes nothing, exit code 1 where the committed files differ
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "src/torpor/images"
HEAD = Path(__file__).resolve().parent / "messages_head.pyi"

# Numbers of FieldDescriptorProto.Type (descriptor.proto of protobuf).
SCALARS = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "fixed64": 6,
    "fixed32": 7,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
    "sfixed32": 15,
    "sfixed64": 16,
    "sint32": 17,
    "sint64": 18,
}
TYPE_MESSAGE = 11
TYPE_ENUM = 14
LABELS = {"optional": 1, "required": 2, "repeated": 3, "packed": 3}
PYTHON_TYPES = {"bool": "bool", "string": "str", "bytes": "_bytes", "double": "float", "float": "float"}
FIRST_ADDED_NUMBER = 10000
#: The tags of the numbers up to here have two bytes in common, by which added.py finds them.
LAST_ADDED_NUMBER = 10015
#: What an entry, or one of several submessages, is known by, where it has one of these.
KEYS = ("id", "start", "pipe_id", "inode_id", "map_id", "pid", "fd", "mnt_id", "ns_id")
#: Whose id is another's.
WITHOUT_KEY = ("eventpoll_tfd_entry",)
KEY_TYPES = ("uint32", "uint64", "int32", "int64")


class SchemaError(Exception):
    """The schema contradicts itself; the text says where."""


@dataclass(frozen=True, slots=True)
class Field:
    number: int
    label: str
    type: str
    name: str
    default: str | None


@dataclass(frozen=True, slots=True)
class Constant:
    number: int
    name: str


@dataclass(slots=True)
class Schema:
    """All messages and enums by name, in the order of the files."""

    messages: dict[str, list[Field]] = field(default_factory=dict)
    enums: dict[str, list[Constant]] = field(default_factory=dict)

    def nested_enums(self, message: str) -> Iterator[tuple[str, list[Constant]]]:
        for name, constants in self.enums.items():
            owner, _, short = name.rpartition(".")
            if owner == message and short:
                yield short, constants


def parse_field(line: str) -> Field:
    head, _, default = line.partition(" = ")
    number, label, type_, name = head.split()
    if label not in LABELS:
        raise SchemaError(f"label {label!r} in {line!r}")
    return Field(int(number), label, type_, name, default or None)


def parse_into(schema: Schema, text: str, *, own: bool) -> None:
    """Adds the blocks of one file. `own`: the file is torpor's, whose names and numbers must not meet CRIU's."""
    block, name = "", ""
    for line in filter(None, (raw.partition("#")[0].rstrip() for raw in text.splitlines())):
        if not line.startswith(" "):
            block, name = line.split()
            if own and block != "extend" and not name.startswith("torpor_"):
                raise SchemaError(f"{name}: a name of torpor's own begins with torpor_")
            if (block == "extend") != (name in schema.messages) or name in schema.enums:
                raise SchemaError(f"{line!r}: known already, or nothing to extend")
            if block == "message":
                schema.messages[name] = []
            elif block == "enum":
                schema.enums[name] = []
        elif block == "enum":
            number, constant = line.split()
            schema.enums[name].append(Constant(int(number), constant))
        else:
            entry = parse_field(line.strip())
            in_range = FIRST_ADDED_NUMBER <= entry.number <= LAST_ADDED_NUMBER
            if block == "extend" and not (in_range and entry.name.startswith("torpor_")):
                told = f"{FIRST_ADDED_NUMBER} to {LAST_ADDED_NUMBER}"
                raise SchemaError(f"{name}.{entry.name}: an added field is torpor_*, with a number from {told}")
            schema.messages[name].append(entry)


def load_schema() -> Schema:
    schema = Schema()
    for file_name, own in (("criu.txt", False), ("torpor.txt", True)):
        parse_into(schema, (IMAGES / "schema" / file_name).read_text(), own=own)
    check(schema)
    return schema


def unique(what: str, items: Iterable[object]) -> None:
    seen: set[object] = set()
    for item in items:
        if item in seen:
            raise SchemaError(f"{what}: {item!r} twice")
        seen.add(item)


def check(schema: Schema) -> None:
    """Raises SchemaError for unknown types, doubled numbers or names, and a default that is no constant of its enum."""
    for name, fields in schema.messages.items():
        unique(name, (f.number for f in fields))
        unique(name, (f.name for f in fields))
        for f in fields:
            if f.type not in SCALARS and f.type not in schema.messages and f.type not in schema.enums:
                raise SchemaError(f"{name}.{f.name}: no type {f.type}")
            if f.default and f.type in schema.enums and f.default not in {c.name for c in schema.enums[f.type]}:
                raise SchemaError(f"{name}.{f.name}: {f.default} is no constant of {f.type}")
    # A constant lives in the scope that its enum lives in, so top-level ones share one scope with the messages.
    top = [c.name for name, constants in schema.enums.items() if "." not in name for c in constants]
    unique("top level", [*top, *schema.messages, *(n for n in schema.enums if "." not in n)])


def varint(value: int) -> bytes:
    if value < 0:
        value += 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def bytes_field(number: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def encode_field(schema: Schema, f: Field) -> bytes:
    type_number = SCALARS.get(f.type) or (TYPE_MESSAGE if f.type in schema.messages else TYPE_ENUM)
    out = bytes_field(1, f.name) + number_field(3, f.number) + number_field(4, LABELS[f.label])
    out += number_field(5, type_number)
    if f.type not in SCALARS:
        out += bytes_field(6, "." + f.type)
    if f.default is not None:
        out += bytes_field(7, f.default)
    if f.label == "packed":
        out += bytes_field(8, number_field(2, 1))
    return out


def encode_enum(name: str, constants: list[Constant]) -> bytes:
    values = (bytes_field(1, c.name) + number_field(2, c.number) for c in constants)
    return bytes_field(1, name) + b"".join(bytes_field(2, value) for value in values)


def encode_message(schema: Schema, name: str) -> bytes:
    out = bytes_field(1, name)
    out += b"".join(bytes_field(2, encode_field(schema, f)) for f in schema.messages[name])
    return out + b"".join(bytes_field(4, encode_enum(short, c)) for short, c in schema.nested_enums(name))


def encode_file(schema: Schema, file_name: str) -> bytes:
    """The schema as one serialized FileDescriptorProto, proto2, without a package."""
    out = bytes_field(1, file_name)
    out += b"".join(bytes_field(4, encode_message(schema, name)) for name in schema.messages)
    return out + b"".join(bytes_field(5, encode_enum(name, c)) for name, c in schema.enums.items() if "." not in name)


def quote(chunk: bytes) -> str:
    return 'b"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in chunk) + '"'


def holders(schema: Schema) -> dict[str, str | None]:
    """CRIU's messages that can hold added fields, in themselves or further in, each with the name of its key.

    One that is the only one of its kind in another message needs no key, and the key might overwrite what was changed.
    """
    found = {
        name
        for name, fields in schema.messages.items()
        if not name.startswith("torpor_") and any(f.number >= FIRST_ADDED_NUMBER for f in fields)
    }
    while True:
        further = {name for name, fields in schema.messages.items() if any(f.type in found for f in fields)} - found
        if not further:
            break
        found |= further
    single = {f.type for fields in schema.messages.values() for f in fields if LABELS[f.label] != LABELS["repeated"]}
    return {
        name: None if name in single or name in WITHOUT_KEY else key_of(schema.messages[name]) for name in sorted(found)
    }


def key_of(fields: list[Field]) -> str | None:
    named = {f.name for f in fields if f.label == "required" and f.type in KEY_TYPES}
    return next((name for name in KEYS if name in named), None)


def added_schema(schema: Schema, holding: dict[str, str | None]) -> Schema:
    """Of what holds added fields only these, the way to them, and keys; whole, what added fields are made of."""
    made = Schema()
    whole: set[str] = set()
    for name, key in holding.items():
        fields = [
            Field(f.number, "optional" if f.label == "required" else f.label, f.type, f.name, f.default)
            for f in schema.messages[name]
            if f.number >= FIRST_ADDED_NUMBER or f.type in holding or f.name == key
        ]
        made.messages[name] = fields
        whole |= {f.type for f in fields if f.number >= FIRST_ADDED_NUMBER and f.type not in SCALARS}
    while whole:
        name = min(whole)
        whole.remove(name)
        if name in holding:
            raise SchemaError(f"{name}: has added fields, and is in one")
        if name in schema.enums:
            made.enums[name] = schema.enums[name]
        elif name not in made.messages:
            made.messages[name] = schema.messages[name]
            whole |= {f.type for f in schema.messages[name] if f.type not in SCALARS}
    return made


def bytes_constant(name: str, data: bytes) -> list[str]:
    return [f"{name} = (", *(f"    {quote(data[at : at + 64])}" for at in range(0, len(data), 64)), ")"]


def descriptors_module(schema: Schema) -> str:
    holding = holders(schema)
    doc = '"""The schema as serialized FileDescriptorProtos, made by tools/gen_schema.py. Do not edit."""'
    lines = [doc, "", "# ruff: noqa", "# fmt: off"]
    lines += bytes_constant("FILE", encode_file(schema, "torpor/images.proto"))
    lines += ["", "#: Added fields alone."]
    lines += bytes_constant("ADDED_FILE", encode_file(added_schema(schema, holding), "torpor/added.proto"))
    lines += ["", "#: What can hold added fields, and the name of its key.", "HOLDERS: dict[str, str | None] = {"]
    lines += [f'    "{name}": {quote_name(key)},' for name, key in holding.items()]
    return "\n".join([*lines, "}", ""])


def quote_name(name: str | None) -> str:
    return "None" if name is None else f'"{name}"'


def python_type(schema: Schema, f: Field, taken: set[str]) -> str:
    """The type of a value of `f` in a class whose fields have the names `taken`."""
    if f.type in schema.messages:
        return f"_{f.type}" if f.type in taken else f.type
    return PYTHON_TYPES.get(f.type, "int")


def stub_enum(name: str, constants: list[Constant], indent: str) -> Iterator[str]:
    yield f"{indent}class {name}(_Enum):"
    for c in constants:
        yield f"{indent}    {c.name}: Final = {c.number}"


def stub_field(schema: Schema, f: Field, taken: set[str]) -> Iterator[str]:
    type_ = python_type(schema, f, taken)
    if LABELS[f.label] != LABELS["repeated"] and f.type not in schema.messages:
        yield f"    {f.name}: {type_}"
        return
    if LABELS[f.label] == LABELS["repeated"]:
        type_ = f"_Messages[{type_}]" if f.type in schema.messages else f"_Scalars[{type_}]"
    yield "    @property"
    yield f"    def {f.name}(self) -> {type_}: ..."


def stub_arguments(schema: Schema, fields: list[Field]) -> Iterator[str]:
    if not fields:
        yield "    def __init__(self) -> None: ..."
        return
    arguments = []
    for f in fields:
        type_ = python_type(schema, f, {other.name for other in fields})
        type_ = f"Iterable[{type_}]" if LABELS[f.label] == LABELS["repeated"] else type_
        arguments.append(f"{f.name}: {type_} | None = ...")
    yield f"    def __init__(self, *, {', '.join(arguments)}) -> None: ..."


def stub_names(method: str, returns: str, names: list[str]) -> Iterator[str]:
    if names:
        literal = ", ".join(f'"{name}"' for name in names)
        yield f"    def {method}(self, field_name: Literal[{literal}]) -> {returns}: ..."


def stub_message(schema: Schema, name: str) -> Iterator[str]:
    fields = schema.messages[name]
    yield f"class {name}(Message):"
    for short, constants in schema.nested_enums(name):
        yield from stub_enum(short, constants, "    ")
        yield ""
        yield from (f"    {c.name}: Final = {c.number}" for c in constants)
    for f in fields:
        yield from stub_field(schema, f, {other.name for other in fields})
    yield from stub_arguments(schema, fields)
    yield from stub_names("HasField", "bool", [f.name for f in fields if LABELS[f.label] != LABELS["repeated"]])
    yield from stub_names("ClearField", "None", [f.name for f in fields])


def stub_module(schema: Schema) -> str:
    lines = HEAD.read_text().splitlines()
    for name, constants in schema.enums.items():
        if "." not in name:
            lines += ["", *stub_enum(name, constants, "")]
    for name in schema.messages:
        lines += ["", *stub_message(schema, name)]
    # Inside a class a field hides the message of the same name.
    hidden = sorted(
        {f.type for fields in schema.messages.values() for f in fields if f.type in schema.messages}
        & {f.name for fields in schema.messages.values() for f in fields}
    )
    lines += ["", *(f"_{name} = {name}" for name in hidden)]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    schema = load_schema()
    made = {IMAGES / "_descriptors.py": descriptors_module(schema), IMAGES / "messages.pyi": stub_module(schema)}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if arguments == ["--check"]:
            print(f"{path.relative_to(ROOT)} is not what the schema says: run tools/gen_schema.py", file=sys.stderr)
        else:
            path.write_text(made[path])
    return 1 if stale and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
