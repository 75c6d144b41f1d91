"""Tests how errors go from one rank to another: as words, back into the same class, and never into any other."""

import inspect

import pytest

from ftsys import errors
from ftsys.errors import BAD_INPUT, ConfigError, DamagedError, FtsysError, error_as_words, error_from_words

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FtsysError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_comes_back_with_its_exit_status(kind: type[FtsysError]) -> None:
    words = error_as_words(kind("one\ntwo"))
    assert words == [kind.__name__, "one\ntwo"]
    found = error_from_words(*words)
    assert (type(found), str(found), found.exit_status) == (kind, "one\ntwo", kind.exit_status)


def test_all_messages_of_an_error_arrive() -> None:
    assert str(error_from_words(*error_as_words(ConfigError("a", "b")))) == "a\nb"


def test_a_class_of_another_module_arrives_as_the_one_that_it_extends() -> None:
    class Special(DamagedError):
        pass

    found = error_from_words(*error_as_words(Special("x")))
    assert (type(found), found.exit_status) == (DamagedError, BAD_INPUT)


@pytest.mark.parametrize("name", ["KeyError", "Iterable", "EXIT_STATUSES", "__builtins__", "", "FtsysError"])
def test_a_name_of_anything_else_makes_a_plain_error(name: str) -> None:
    assert type(error_from_words(name, "x")) is FtsysError
