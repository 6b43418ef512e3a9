"""criu's command line: getopt's forms, configuration files, and what is refused."""

from pathlib import Path

import pytest

from torpor.base.errors import UsageError
from torpor.cli.criu import main
from torpor.cli.criu.options import Options
from torpor.cli.criu.parse import parse


@pytest.fixture(autouse=True)
def no_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.delenv("CRIU_CONFIG_FILE", raising=False)


def parsed(line: str) -> Options:
    return parse(["--no-default-config", *line.split()])[0]


def test_values_after_a_space_an_equals_sign_or_nothing() -> None:
    assert parsed("dump -t 12").tree == parsed("dump -t12").tree == parsed("dump --tree=12").tree == 12
    assert parsed("dump --tree 12 -D d").images_dir == "d"


@pytest.mark.parametrize(
    ("line", "level"), [("", 2), ("-v", 3), ("-vv", 4), ("-v4", 4), ("--verbosity=1", 1), ("-verbosity=0", 0)]
)
def test_verbosity_has_every_form_of_getopt(line: str, level: int) -> None:
    assert parsed(f"check {line}").verbosity == level


def test_short_flags_may_be_joined_and_the_command_may_come_last() -> None:
    options, rest = parse(["-djl", "-o", "x.log", "restore"])
    assert (options.restore_detached, options.shell_job, options.file_locks) == (True, True, True)
    assert rest == ["restore"]


def test_switches_can_be_negated_and_names_shortened() -> None:
    assert parsed("dump --tcp-close --no-tcp-close").tcp_close is False
    assert parsed("dump --ghost-l 8M").ghost_limit == 8 << 20


def test_what_follows_two_dashes_is_no_option() -> None:
    options, rest = parse(["restore", "--exec-cmd", "--", "sh", "-c", "true"])
    assert options.exec_cmd
    assert rest == ["restore", "sh", "-c", "true"]


def test_external_resources_in_old_and_new_words() -> None:
    options = parsed("dump --external mnt[/dev]:D -M /a:B --veth-pair eth0=veth1 -x12,13 --inherit-fd fd[4]:pipe:[7]")
    assert options.all_external == ("mnt[/dev]:D", "mnt[/a]:B", "veth[eth0]:veth1", "unix[12]", "unix[13]")
    assert options.inherit_fd == [(4, "pipe:[7]")]
    assert parsed("dump --ext-mount-map auto --enable-external-sharing").all_external == ("mnt[]:s",)


@pytest.mark.parametrize(
    "line",
    ["dump --nonsense", "dump -t", "dump -t x", "dump -t 0", "dump --tcp", "dump --leave-running=1", "dump -Z",
     "dump --inherit-fd 4", "dump --network-lock wall", "dump --cpu-cap=gpu"],
)  # fmt: skip
def test_wrong_words_are_usage_errors(line: str) -> None:
    with pytest.raises(UsageError):
        parsed(line)


def test_configuration_files_come_first_and_the_command_line_wins(tmp_path: Path) -> None:
    config = tmp_path / "criu.conf"
    config.write_text('# a comment\n\n  tcp-close\nverbosity 4 # more\nlog-file "a \\"b\\".log"\nghost-limit 1M\n')
    options, _ = parse(["dump", "--config", str(config), "--ghost-limit", "2M"])
    assert (options.tcp_close, options.verbosity, options.log_file) == (True, 4, 'a "b".log')
    assert options.ghost_limit == 2 << 20


@pytest.mark.parametrize("text", ["log-file a b\n", 'log-file "a\n', "nonsense\n"])
def test_a_bad_configuration_file_is_named(text: str, tmp_path: Path) -> None:
    config = tmp_path / "criu.conf"
    config.write_text(text)
    with pytest.raises(UsageError):
        parse(["dump", "--config", str(config)])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("check", ""),
        ("dedup", ""),
        ("dump", "--page-server"),
        ("restore", "--lazy-pages"),
        ("dump", "--prev-images-dir p"),
    ],
)
def test_streams_are_for_sets_that_come_or_go_as_a_whole(command: str, words: str) -> None:
    options = parsed(f"{command} --stream -t 1 {words}")
    with pytest.raises(UsageError, match="--stream"):
        main.check_words(command, options)


def test_wrong_words_end_with_2_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["dump", "--nonsense"]) == 2
    assert "--nonsense" in capsys.readouterr().err


def test_the_version_is_one_that_runtimes_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("Version: 4.2\n")
