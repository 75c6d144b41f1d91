"""Shows a note: what was guessed, or a choice that was made for the user."""

from ftsys.console.printer import say
from ftsys.ranks import is_main_rank


def show_notes(*notes: str) -> None:
    """Print each note on standard error, on rank 0 only."""
    for note in notes if is_main_rank() else ():
        say(f"note: {note}")
