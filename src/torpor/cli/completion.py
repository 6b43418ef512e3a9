"""Completions for bash, zsh and fish, made of the tables of commands and options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torpor.cli.words import Command, Option, commands_of_criu, commands_of_torpor, options_of_criu

_MADE = "# Made of torpor's tables of commands and options."


def files() -> dict[str, str]:
    """All of them, by their places below a directory such as /usr/share."""
    torpor = commands_of_torpor()
    criu, common = commands_of_criu(), options_of_criu()
    return {
        "bash-completion/completions/torpor": bash("torpor", torpor),
        "bash-completion/completions/criu": bash("criu", criu, common),
        "zsh/site-functions/_torpor": zsh("torpor", torpor),
        "zsh/site-functions/_criu": zsh("criu", criu, common),
        "fish/vendor_completions.d/torpor.fish": fish("torpor", torpor),
        "fish/vendor_completions.d/criu.fish": fish("criu", criu, common),
    }


def bash(program: str, commands: Sequence[Command], common: Sequence[Option] = ()) -> str:
    """The text of a completion for bash; *common*: options that every command takes."""
    lines = [
        _MADE,
        f"_{program}_complete() {{",
        '    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command="" at',
        "    for ((at = 1; at < COMP_CWORD; at++)); do",
        "        [[ ${COMP_WORDS[at]} != -* ]] && command=${COMP_WORDS[at]} && break",
        "    done",
        "    local options='-h --help -v --verbose --version' names='' files=''",
        "    COMPREPLY=()",
        "    case $command in",
        f"    '') names='{' '.join(command.name for command in commands)}' ;;",
    ]
    for command in commands:
        options = (*command.options, *common)
        words = " ".join(name for option in options for name in option.names)
        lines.append(f"    {command.name})")
        lines.append(f"        options='{words}'")
        lines += _bash_values(options)
        if command.lister:
            lines.append(f"        names=$({command.lister} 2>/dev/null)")
        lines.append(f"        files={'yes' if command.takes_files or not command.lister else ''} ;;")
    lines += [
        "    esac",
        "    if [[ $word == -* ]]; then",
        '        COMPREPLY=($(compgen -W "$options" -- "$word"))',
        "        return",
        "    fi",
        '    COMPREPLY=($(compgen -W "$names" -- "$word"))',
        '    [[ $files ]] && COMPREPLY+=($(compgen -f -- "$word"))',
        "}",
        f"complete -o filenames -F _{program}_complete {program}",
    ]
    return "\n".join(lines) + "\n"


def _bash_values(options: Sequence[Option]) -> Iterator[str]:
    """What follows an option that takes a value: one of its choices, or a file."""
    yield "        case $before in"
    for option in options:
        if option.choices:
            choices = " ".join(option.choices)
            yield f"        {'|'.join(option.names)}) COMPREPLY=($(compgen -W '{choices}' -- \"$word\")); return ;;"
    valued = [
        name
        for option in options
        if option.value and not option.choices and "[" not in option.value
        for name in option.names
    ]
    if valued:
        yield f'        {"|".join(valued)}) COMPREPLY=($(compgen -f -- "$word")); return ;;'
    yield "        esac"


def zsh(program: str, commands: Sequence[Command], common: Sequence[Option] = ()) -> str:
    """The text of a completion for zsh; *common*: options that every command takes."""
    lines = [f"#compdef {program}", _MADE, f"_{program}() {{", "    local -a commands", "    commands=("]
    lines += [f"        {_quoted(f'{command.name}:{command.purpose}')}" for command in commands]
    lines += [
        "    )",
        "    local curcontext=$curcontext state line",
        "    _arguments -C '(- *)'{-h,--help}'[help]' '(- *)--version[version]' '1: :->command' '*:: :->rest'",
        "    case $state in",
        "    command) _describe command commands ;;",
        "    rest)",
        "        case $words[1] in",
    ]
    for command in commands:
        lines.append(f"        {command.name})")
        lines.append("            _arguments \\")
        for option in (*command.options, *common):
            lines += [f"                {_quoted(_zsh_option(name, option))} \\" for name in option.names]
        files = "_files" if command.takes_files or not command.lister else ""
        listed = f'compadd -- ${{(f)"$({command.lister} 2>/dev/null)"}}' if command.lister else ""
        action = "; ".join(filter(None, (listed, files)))
        lines.append(f"                {_quoted('*:name:{' + action + '}')} ;;")
    lines += ["        esac ;;", "    esac", "}", f'_{program} "$@"']
    return "\n".join(lines) + "\n"


def _zsh_option(name: str, option: Option) -> str:
    text = (
        option.text.replace("%%", "%").replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    )
    if not option.value:
        return f"{name}[{text}]"
    value = option.value.strip("[]").replace(":", "\\:")
    action = f"({' '.join(option.choices)})" if option.choices else "_files"
    joined = "=" if name.startswith("--") else "+"
    return f"{name}{joined}[{text}]:{value}:{action}"


def fish(program: str, commands: Sequence[Command], common: Sequence[Option] = ()) -> str:
    """The text of a completion for fish; *common*: options that every command takes."""
    names = " ".join(command.name for command in commands)
    lines = [_MADE, f"complete -c {program} -f"]
    for command in commands:
        first = f"-n 'not __fish_seen_subcommand_from {names}'"
        lines.append(f"complete -c {program} {first} -a {command.name} -d {_quoted(command.purpose)}")
    for command in commands:
        there = f"complete -c {program} -n '__fish_seen_subcommand_from {command.name}'"
        if command.lister:
            lines.append(f"{there} -a '({command.lister} 2>/dev/null)'")
        if command.takes_files or not command.lister:
            lines.append(f"{there} -F")
        lines += [_fish_option(there, option) for option in command.options]
    lines += [_fish_option(f"complete -c {program}", option) for option in common]
    return "\n".join(lines) + "\n"


def _fish_option(there: str, option: Option) -> str:
    words = [there]
    for name in option.names:
        words.append(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}")
    if option.choices:
        words.append(f"-x -a {_quoted(' '.join(option.choices))}")
    elif option.value and "[" not in option.value:
        words.append("-r -F")
    return " ".join([*words, f"-d {_quoted(option.text.replace('%%', '%'))}"])


def _quoted(text: str) -> str:
    """In single quotes, as all three shells take them."""
    return "'" + text.replace("'", "'\\''") + "'"
