"""Fuzzes one reader with inputs that atheris chooses by the branches of ftsys that they reach.

`python -m tests.fuzz.guided "run file" -runs=100000`, with any option of libFuzzer, such as -max_total_time=60. It
starts from the reader's real file and ends with 0, or with 77 after a finding: the traceback and the file are printed.
"""

import random
import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz.mutations import DICTIONARY, VALUES, with_other_value

with atheris.instrument_imports(include=["ftsys", "launcher"]):
    from tests.fuzz.more_readers import all_readers
    from tests.fuzz.reading import read_in_new_folder

LONGEST_WORD = 64
"""Bytes of a dictionary's word that libFuzzer takes."""


def fuzz(name: str, options: list[str]) -> None:
    """Fuzz the reader with this name. Ends the process."""
    reader = all_readers()[name]
    folder = Path(tempfile.mkdtemp(prefix="ftsys-fuzz-"))
    (folder / "seeds").mkdir()
    (folder / "seeds" / "real").write_bytes(reader.content)
    (folder / "words").write_text("".join(map(_quoted, filter(_fits, DICTIONARY))))
    own = [f"-dict={folder / 'words'}", f"-artifact_prefix={folder}/", f"-max_len={4 * len(reader.content)}"]
    words = [sys.argv[0], *own, *options, str(folder / "seeds")]
    atheris.Setup(words, lambda content: read_in_new_folder(reader, content), custom_mutator=_changed)
    atheris.Fuzz()


def _changed(content: bytes, longest: int, seed: int) -> bytes:
    """Change a value of a JSON file, or bytes of any file as libFuzzer does."""
    chance = random.Random(seed)
    made = with_other_value(chance.random(), chance.choice(VALUES))(content) if chance.random() < 0.5 else content
    return made if made != content and len(made) <= longest else atheris.Mutate(content, longest)


def _fits(word: bytes) -> bool:
    return 0 < len(word) <= LONGEST_WORD


def _quoted(word: bytes) -> str:
    """Return a line of libFuzzer's dictionary format."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


if __name__ == "__main__":
    fuzz(sys.argv[1], sys.argv[2:])
