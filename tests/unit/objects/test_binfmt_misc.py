from torpor.objects.ns.mnt.binfmt_misc import line_of, parse


def test_magic() -> None:
    entry = parse("elf", "enabled\ninterpreter /usr/bin/run it\nflags: OC\noffset 4\nmagic 7f454c46\nmask ffffff00\n")
    assert entry.enabled
    assert line_of(entry) == r":elf:M:4:\x7f\x45\x4c\x46:\xff\xff\xff\x00:/usr/bin/run it:OC"


def test_extension() -> None:
    entry = parse("jar", "disabled\ninterpreter /usr/bin/java\nflags: \nextension .jar\n")
    assert not entry.enabled
    assert line_of(entry) == ":jar:E::jar::/usr/bin/java:"
