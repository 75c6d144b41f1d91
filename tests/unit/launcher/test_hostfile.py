"""Tests DeepSpeed's hostfile: its meaning, and that no name in it can become an option or shell code."""

import shlex
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ftsys.errors import LaunchError
from launcher.hostfile import Host, check_host_name, is_host_name, parse_hostfile


def test_hosts_comments_and_empty_lines() -> None:
    text = "# the rack\nnode1 slots=4\n\n  node-2.lab   slots=8   # the big one\n10.0.0.3\tslots=1\r\n"
    assert parse_hostfile(text, "hosts") == (Host("node1", 4), Host("node-2.lab", 8), Host("10.0.0.3", 1))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("node2", "'node2' is not a host: write `node2 slots=N`"),
        ("node2 slots=", "'node2 slots=' is not a host"),
        ("node2 slots=0", "'node2 slots=0' is not a host"),
        ("node2 slots=-1", "'node2 slots=-1' is not a host"),
        ("node2 slots=two", "'node2 slots=two' is not a host"),
        ("node2 slots=2 gpus=2", "'node2 slots=2 gpus=2' is not a host"),
        ("node1 slots=2", "'node1' is listed twice"),
        ("-oProxyCommand=evil slots=2", "'-oProxyCommand=evil' is not a host name"),
        ("a;b slots=2", "'a;b' is not a host name"),
        ("$(x) slots=2", "'$(x)' is not a host name"),
        ("`x` slots=2", "'`x`' is not a host name"),
        ("me@node2 slots=2", "The user's name belongs into ~/.ssh/config"),
        ("fe80::1 slots=2", "'fe80::1' is not a host name"),
    ],
)
def test_a_bad_line_is_reported_with_its_number(line: str, said: str) -> None:
    with pytest.raises(LaunchError) as raised:
        parse_hostfile(f"# hosts\nnode1 slots=4\n{line}\n", "my/hosts")
    assert str(raised.value).startswith("hostfile 'my/hosts', line 3: ")
    assert said in str(raised.value)
    assert raised.value.exit_status == 2


def test_every_bad_line_is_reported_at_once() -> None:
    with pytest.raises(LaunchError) as raised:
        parse_hostfile("a b\nnode1 slots=1\n-x slots=1\n", "hosts")
    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == [
        "hostfile 'hosts', line 1",
        "hostfile 'hosts', line 3",
    ]


def test_a_file_without_a_host() -> None:
    with pytest.raises(LaunchError, match="hostfile 'hosts' names no host"):
        parse_hostfile("# nothing\n", "hosts")


@given(st.text(alphabet=string.printable + "äß\u2028\x00", max_size=20))
@example("node1\n")
@example("")
def test_a_name_that_passes_is_one_harmless_word(text: str) -> None:
    if is_host_name(text):
        assert shlex.quote(text) == text
        assert shlex.split(text) == [text]
        assert not text.startswith("-")
        assert check_host_name(text) == text
    else:
        with pytest.raises(LaunchError):
            check_host_name(text)


@given(st.lists(st.tuples(st.from_regex(r"[a-z][a-z0-9.-]{0,10}", fullmatch=True), st.integers(1, 999)), min_size=1))
def test_what_is_written_is_read(pairs: list[tuple[str, int]]) -> None:
    hosts = tuple(Host(name, slots) for name, slots in dict(pairs).items())
    text = "".join(f"{host.name} slots={host.slots}\n" for host in hosts)
    assert parse_hostfile(text, "hosts") == hosts
