"""`python -m search` is the command line."""

from __future__ import annotations

import sys

from search.interruption import (
    adopt_orphans,
    do_nothing,
    end_at_once,
    interruptible,
    was_interrupted,
)
from search.streams import set_usable_streams


def main() -> int:
    """Run one command; returns the exit code. Signals are handled from here on."""
    set_usable_streams()
    adopt_orphans()
    with interruptible(end_at_once, answer=do_nothing):
        from search.cli.main import main as run

        code = run()
        if was_interrupted():  # threads of libraries could make the exit long, or crash it
            end_at_once()
        return code


if __name__ == "__main__":
    sys.exit(main())
