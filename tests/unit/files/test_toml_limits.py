"""Tests that TOML with endless keys and integers is refused in time, and that ordinary files are not."""

import tomllib
from pathlib import Path

import pytest

from ftsys.config.load import load_run, parse_overrides
from ftsys.errors import ConfigError
from ftsys.files.untrusted import parse_toml

DIGITS = {
    "hexadecimal": "0x" + "f" * 4_000,
    "octal": "0o" + "7" * 5_000,
    "binary": "0b" + "1" * 15_000,
    "just above": "-1" + "0" * 308,
}
DEEP_TOML = {
    "a dotted key": "train.a{} = 1".format(".a" * 2_000),
    "a key with blanks": "train.a{} = 1".format(" . a" * 2_000),
    "a key in quotes": "train.a{} = 1".format(""".'a'."b" """ * 1_000),
    "a section": "[train.a{}]".format(".a" * 2_000),
    "a dotted key in a table": "train = {{ a{} = 1 }}".format(".a" * 2_000),
    "after strings": """a = "#" # "\nb = \"\"\"\\\"\"\"\"\"\nc = '''"'''\ntrain.a{} = 1""".format(".a" * 2_000),
    "keys in tables": "train" + f" = {{ a{'.a' * 40}" * 20 + " = 1" + " }" * 20,
}


@pytest.mark.parametrize("text", [f"[train]\nepochs = [{digits}]" for digits in DIGITS.values()], ids=DIGITS)
def test_an_integer_that_is_no_float_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"run\.toml' cannot be used: an integer has more than 308 digits"):
        load_run(tmp_path / "run.toml")


@pytest.mark.parametrize("text", DEEP_TOML.values(), ids=DEEP_TOML)
def test_a_key_with_thousands_of_parts_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(
        ConfigError, match=r"cannot be used: (a key has more than 50 parts \(at line |it is nested too)"
    ):
        load_run(tmp_path / "run.toml")
    with pytest.raises(ConfigError, match="is no key: it has more than 50 parts"):
        parse_overrides([f"--train.a{'.a' * 2_000}", "1"])


def test_a_long_key_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tomllib, "loads", None)
    with pytest.raises(ValueError, match=r"more than 50 parts \(at line 3\)"):
        parse_toml("a = 1\n\n" + "a." * 30_000 + "a = 1\n")


ORDINARY = (
    f'a = "{"x." * 99}"',
    f"a = '{'x.' * 99}'",
    f'a = """{"x." * 99}\n""{"x." * 99}"""""\nb = "x"',
    f"a = '''\"{'x.' * 99}\n''{'x.' * 99}'''",
    f"a = 1 # {'x.' * 99}",
    f"a = [{'1.5, ' * 999}]",
    "a = [" + '"x.y", ' * 999 + "]",
    f"a = 0x{'f' * 250}",
    "\n".join(f"[a.b.c{number}]\nx.y = 1.5" for number in range(99)),
    f"{'.'.join('a' * 50)} = 1",
)


@pytest.mark.parametrize("text", ORDINARY)
def test_dots_and_digits_of_ordinary_files_are_read(text: str) -> None:
    assert parse_toml(text) == tomllib.loads(text)
