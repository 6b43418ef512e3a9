"""criu's command line and configuration files: the form of getopt_long(3), the table of :mod:`.options`."""

from __future__ import annotations

import os

from torpor.base.errors import UsageError
from torpor.base.fds import only_files, only_given
from torpor.cli.criu.options import FLAG, MAYBE, OPTIONS, SWITCH, VALUE, Option, Options

_HINT = "criu --help lists what there is"
_SHORT = {option.short: option for option in OPTIONS if option.short}
_LONG = {option.name: (option, True) for option in OPTIONS} | {
    f"no-{option.name}": (option, False) for option in OPTIONS if option.takes == SWITCH
}
_GLOBAL_CONFIG = "/etc/criu/default.conf"


def parse(words: list[str]) -> tuple[Options, list[str]]:
    """The options of *words* over those of the configuration files, and what is no option.  UsageError."""
    options = Options()
    for path, must_exist in _config_files(words):
        _Parser(options).run(_read_config(path, must_exist))
    return options, _Parser(options).run(words)


def override(options: Options, path: str) -> None:
    """Apply a configuration file that need not exist over *options*: the one that an RPC client names."""
    _Parser(options).run(_read_config(path, False))


class _Parser:
    """One pass over some words."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._words: list[str] = []
        self._at = 0

    def run(self, words: list[str]) -> list[str]:
        """Apply all of them; those that are no options come back."""
        self._words, self._at = words, 0
        rest: list[str] = []
        while self._at < len(words):
            word = words[self._at]
            self._at += 1
            if word == "--":
                return rest + words[self._at :]
            if word.startswith("--"):
                self._long(word[2:])
            elif word.startswith("-") and word != "-":
                self._short(word[1:])
            else:
                rest.append(word)
        return rest

    def _long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        option, wanted = _find(name)
        shown = f"--{name}"
        if option.takes in (FLAG, SWITCH):
            if equals:
                raise UsageError(f"option {shown} takes no value", hint=_HINT)
            self._apply(option, shown, wanted)
        elif option.takes == MAYBE:
            self._apply(option, shown, value if equals else None)
        else:
            self._apply(option, shown, value if equals else self._next(shown))

    def _short(self, letters: str) -> None:
        while letters:
            option, letters = _SHORT.get(letters[0]), letters[1:]
            if option is None:
                raise UsageError(f"unknown option -{letters[-1:] or self._words[self._at - 1][-1]}", hint=_HINT)
            shown = f"-{option.short}"
            if option.takes in (FLAG, SWITCH):
                self._apply(option, shown, True)
                continue
            if option.takes == MAYBE:
                self._apply(option, shown, letters or None)
            else:
                self._apply(option, shown, letters or self._next(shown))
            return

    def _next(self, shown: str) -> str:
        if self._at >= len(self._words):
            raise UsageError(f"option {shown} needs a value", hint=_HINT)
        self._at += 1
        return self._words[self._at - 1]

    def _apply(self, option: Option, shown: str, value: str | bool | None) -> None:
        options = self._options
        if option.name == "verbosity" and (value is None or (isinstance(value, str) and value.startswith("v"))):
            options.verbosity += 1 + len(value or "")
            return
        if option.name == "ext-unix-sk":
            _external_sockets(options, str(value or ""), shown)
            return
        result: object = value
        if option.takes in (VALUE, MAYBE) and option.parse is not None:
            try:
                result = option.parse(str(value or ""))
            except ValueError as error:
                raise UsageError(f"option {shown}: bad value {value!r}: {error}", hint=_HINT) from None
        held = getattr(options, option.field)
        if isinstance(held, list):
            held.append(result)
        else:
            setattr(options, option.field, result)


def _find(name: str) -> tuple[Option, bool]:
    """By its name or an unambiguous beginning of it, as getopt_long(3) allows."""
    if name in _LONG:
        return _LONG[name]
    candidates = [full for full in _LONG if full.startswith(name)] if name else []
    if len(candidates) == 1:
        return _LONG[candidates[0]]
    if candidates:
        raise UsageError(f"option --{name} may mean --{', --'.join(candidates)}", hint=_HINT)
    from torpor.base.nearby import near

    raise UsageError(f"unknown option --{name}", hint=near(f"--{name}", [f"--{each}" for each in _LONG]) or _HINT)


def _external_sockets(options: Options, inodes: str, shown: str) -> None:
    """``--ext-unix-sk`` allows all; ``--ext-unix-sk=INODE,…`` those, which is ``--external unix[INODE]``."""
    options.ext_unix_sk = True
    for inode in filter(None, inodes.split(",")):
        if not inode.isdigit():
            raise UsageError(f"option {shown}: {inode!r} is no inode number", hint=_HINT)
        options.external.append(f"unix[{inode}]")


# -- configuration files ----------------------------------------------------------------------------------------


def _config_files(words: list[str]) -> list[tuple[str, bool]]:
    """Those that hold for a command line, in the order they are read, and whether each must exist."""
    named: list[tuple[str, bool]] = []
    for at, word in enumerate(words):
        if word == "--":
            break
        if word == "--config" and at + 1 < len(words):
            named = [(words[at + 1], True)]
        elif word.startswith("--config="):
            named = [(word.partition("=")[2], True)]
    files: list[tuple[str, bool]] = []
    if "--no-default-config" not in words:
        home = os.environ.get("HOME", "")
        files = [(_GLOBAL_CONFIG, False)] + ([(f"{home}/.criu/default.conf", False)] if home else [])
    environment = os.environ.get("CRIU_CONFIG_FILE", "")
    return files + ([(environment, False)] if environment else []) + named


def _read_config(path: str, must_exist: bool) -> list[str]:
    try:
        # What is named on the command line may be a pipe of the shell's; nothing else may be one.
        opener = only_given if must_exist else only_files
        with open(path, encoding="utf-8", errors="surrogateescape", opener=opener) as stream:
            lines = stream.readlines()
    except OSError as error:
        if must_exist:
            raise UsageError(f"configuration file {path}: {error.strerror}") from None
        return []
    words = []
    for number, line in enumerate(lines, 1):
        words += _statement(line.strip(), f"{path}:{number}")
    return words


def _statement(line: str, place: str) -> list[str]:
    """``option``, ``option value`` or ``option "quoted value"``, and a comment."""
    if not line or line.startswith("#"):
        return []
    name, _, rest = line.replace("\t", " ").partition(" ")
    rest = rest.strip()
    if not rest or rest.startswith("#"):
        return [f"--{name}"]
    if rest.startswith('"'):
        value, rest = _quoted(rest[1:], place)
    else:
        value, _, rest = rest.partition(" ")
        value = value.partition("#")[0]
    if rest.strip() and not rest.strip().startswith("#"):
        raise UsageError(f"{place}: {rest.strip()!r} is too much", hint="a value with spaces needs double quotes")
    option, _ = _find(name)
    # A value that may be left out is taken only when it is joined to its option.
    return [f"--{name}={value}"] if option.takes == MAYBE else [f"--{name}", value]


def _quoted(text: str, place: str) -> tuple[str, str]:
    value = ""
    at = 0
    while at < len(text):
        if text[at] == '"':
            return value, text[at + 1 :]
        if text.startswith('\\"', at):
            at += 1
        value += text[at]
        at += 1
    raise UsageError(f"{place}: the closing quote is missing")
