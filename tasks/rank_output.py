"""What several processes print: the whole of it to one file, a bounded part to the run's log.

The log gets the first lines, and at the end the last ones: there stands why something failed. The
file goes with the run's folder.
"""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

FIRST_LINES, LAST_LINES = 1000, 100
"""What the log gets of the processes' output."""
MAX_CHARACTERS = 2000
"""Of a line in the log."""


class Tail:
    """What a growing file has gained since it was last asked, in whole lines."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._torn = path, 0, b""

    def lines(self, last: bool = False) -> list[bytes]:
        """The lines that are complete by now; at `last` also one whose end will not come."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            self._torn += file.read()
            self._offset = file.tell()
        *whole, self._torn = self._torn.split(b"\n")
        return [*whole, self._torn] if last and self._torn else whole


class RankOutput:
    """Files that processes print to, by a name for each; those in `quiet` stay out of the log."""

    def __init__(
        self,
        whole: Path,
        parts: Mapping[str, Path],
        log: Callable[[str], None],
        quiet: frozenset[str] = frozenset(),
    ) -> None:
        self._whole, self._log, self._quiet = whole, log, quiet
        self._tails = {name: Tail(path) for name, path in parts.items()}
        self._num_said, self._num_left_out = 0, 0
        self._latest: deque[str] = deque(maxlen=LAST_LINES)

    def pass_on(self, last: bool = False) -> None:
        """Read what came; at `last` say what the log has not got of the end."""
        with self._whole.open("ab") as file:
            for name, tail in self._tails.items():
                for line in tail.lines(last):
                    file.write(f"{name}: ".encode() + line + b"\n")
                    if name not in self._quiet:
                        self._say(f"{name}: {line.decode(errors='replace')}"[:MAX_CHARACTERS])
        if last:
            self._say_the_end()

    def _say(self, line: str) -> None:
        if self._num_said < FIRST_LINES:
            self._num_said += 1
            self._log(line)
            return
        self._num_left_out += 1
        self._latest.append(line)

    def _say_the_end(self) -> None:
        if num_lost := self._num_left_out - len(self._latest):
            self._log(f"{num_lost:,} lines of the ranks are left out here")
        for line in self._latest:
            self._log(line)
        self._latest.clear()
        self._num_left_out = 0
