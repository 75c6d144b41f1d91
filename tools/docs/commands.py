"""Writes the reference page of the commands from the parsers that read their command lines."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import IO
from unittest.mock import patch

from ftsys import cli as ftsys_cli
from ftsys.bench.command import BENCHMARKS
from launcher import cli as launcher_cli
from tools.docs.markdown import GENERATED, options_table, sentence, table

Main = Callable[[Sequence[str]], int]

HEAD = f"""{GENERATED}
# Commands

`ftsys` is one process, alone or as a rank of any launcher. `ftlaunch` plans runs and starts their ranks. Both end with
one of the [exit statuses](exit-statuses.md). `--help` behind a command prints what this page says about it.

`[--section.key VALUE ...]` are overrides: any key in a section of the [run file](run-file.md), with the value for this
start, for example `--train.seed 7`.
"""

OTHER_FORMS = {("predict",): ("predict", "RUN.toml")}
"""Words of a command -> words by which its parser of another form answers."""

FLAGS_PAGE = "It reads the flags of transformers' example script: see [Flags of `run_glue.py`](run-glue-flags.md).\n"


def commands_page() -> str:
    """Return the page: every command of `ftsys` and of `ftlaunch`, with its arguments."""
    ftsys = _choices(ftsys_cli.build_parser())
    launcher = _choices(launcher_cli.build_parser())
    pieces = [HEAD, "## ftsys\n", _overview("ftsys", ftsys)]
    for name, text in ftsys.items():
        pieces.append(_entry(ftsys_cli.main, "ftsys", (name,), text))
        below = BENCHMARKS if name == "bench" else {}
        pieces += [_entry(ftsys_cli.main, "ftsys", (name, each), says) for each, says in below.items()]
    pieces += ["## ftlaunch\n", _overview("ftlaunch", launcher)]
    pieces += [_entry(launcher_cli.main, "ftlaunch", (name,), text) for name, text in launcher.items()]
    return "\n".join(pieces)


def _choices(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the sub-commands of a parser with the help of each."""
    choices = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {action.dest: action.help or "" for action in choices._choices_actions}


def _overview(program: str, commands: dict[str, str]) -> str:
    rows = [(f"[`{program} {name}`](#{_anchor(program, name)})", sentence(text)) for name, text in commands.items()]
    return table(("Command", "Meaning"), rows)


def _anchor(*words: str) -> str:
    return "-".join(words)


def _entry(main: Main, program: str, words: tuple[str, ...], text: str) -> str:
    level = "####" if len(words) > 1 else "###"
    head = f"{level} `{' '.join((program, *words))}` {{ #{_anchor(program, *words)} }}\n\n"
    if words == ("run-glue",):
        return f"{head}{sentence(text)} {FLAGS_PAGE}"
    if words == ("bench",):
        return f"{head}{sentence(text)} Its benchmarks are:\n"
    parser = asked_parser(main, words)
    pieces = [f"{head}{sentence(parser.description or text)}\n\n{_form(parser)}"]
    if words in OTHER_FORMS:
        other = asked_parser(main, OTHER_FORMS[words])
        pieces.append(f"{sentence(other.description or text)}\n\n{_form(other)}")
    return "\n".join(pieces)


def _form(parser: argparse.ArgumentParser) -> str:
    rows = list(_rows(parser))
    arguments = options_table(("Argument", "Meaning"), rows) if rows else ""
    return f"```text\n{usage(parser)}\n```\n\n{arguments}"


def asked_parser(main: Main, words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser that answers `--help` behind these words. The module that makes it need not be known."""
    asked: list[argparse.ArgumentParser] = []

    def keep(parser: argparse.ArgumentParser, file: IO[str] | None = None) -> None:
        asked.append(parser)

    with patch.object(argparse.ArgumentParser, "print_help", keep), suppress(SystemExit):
        main([*words, "--help"])
    return asked[0]


def usage(parser: argparse.ArgumentParser) -> str:
    """Return one line that shows the command. argparse's own differs between versions of Python."""
    if parser.usage:
        return str(parser.usage)
    fixed = [_shown(action) for action in parser._actions if not action.option_strings or action.required]
    overrides = ["[--section.key VALUE ...]"] if "--section.key" in (parser.epilog or "") else []
    return " ".join([parser.prog, *fixed, *(["[OPTIONS]"] if any(_optional(parser)) else []), *overrides])


def _optional(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if action.option_strings and not action.required and not isinstance(action, argparse._HelpAction):
            yield action


def _rows(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            help_text = (action.help or "") % {**vars(action), "prog": parser.prog}
            yield f"`{_shown(action)}`", sentence(help_text) if help_text else ""


def _shown(action: argparse.Action) -> str:
    """Return an argument as it is typed: its first name and its value."""
    names = " ".join(action.metavar) if isinstance(action.metavar, tuple) else action.metavar
    value = names or ("{" + ",".join(action.choices) + "}" if action.choices else action.dest.upper())
    if action.nargs == "+":
        value = f"{value} [{value} ...]"
    elif action.nargs == "?" and not action.option_strings:
        value = f"[{value}]"
    if not action.option_strings:
        return str(value)
    return action.option_strings[0] if action.nargs == 0 else f"{action.option_strings[0]} {value}"
