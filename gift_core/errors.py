"""Every error that the product raises on purpose.

GiftError              base: one clear sentence, what is wrong, where, what to do
|-- SettingsError      a setting, a sequence file or a combination of both is wrong
|-- DataError          a data set, a class list, an image or a prompt is wrong
|-- StoreError         an object cannot be read, written or trusted
|-- Refused            a new model is worse than its gate allows
|-- RankLost           a process of a training by several ended before its work was done
|-- StageLost          a run that was dispatched to a worker ended without its output
`-- Diverged           training produced numbers that no longer mean anything
"""

import re

PASSWORD = re.compile(r"://[^/\s@]*@")
"""User and password in an address, in front of the host."""

MAX_CHARACTERS = 1000
"""The longest text of an error: a sentence may quote a name or a path, not a file."""


def one_line(text: object, limit: int = MAX_CHARACTERS) -> str:
    """Foreign text as a sentence may quote it: one line, nothing that a terminal would act on.

    What is longer than `limit` loses its middle. A user and password in an address are starred.
    """
    words = PASSWORD.sub("://***@", " ".join(str(text).split()))
    plain = "".join(letter if letter.isprintable() else "?" for letter in words)
    half = (limit - 5) // 2
    return plain if len(plain) <= limit else f"{plain[:half]} ... {plain[-half:]}"


class GiftError(Exception):
    """Base of the tree; its text is shown to the user as it is, without a traceback.

    Whatever it quotes (a library's message, a name out of a file), its text is one line.

    Example:
        >>> raise DataError("digits: no file data/digits/train.parquet; run `make data`")
    """

    exit_code = 1

    def __str__(self) -> str:
        """Its sentence, as `one_line` gives it."""
        return one_line(super().__str__())


class SettingsError(GiftError):
    """A setting is unknown, out of its bounds, or does not fit the others."""

    exit_code = 2


class DataError(GiftError):
    """A data set is missing, unreadable, or does not match its class list."""

    exit_code = 2


class StoreError(GiftError):
    """A store cannot be reached, or an object in it is missing, torn or altered."""

    exit_code = 2


class Diverged(GiftError):  # noqa: N818 - the field's word for it
    """Training left the numbers that mean something: not finite, or what was known is lost."""


class Refused(GiftError):  # noqa: N818 - the gate's own word
    """A new model broke a rule of its sequence's gate; it is kept, and not promoted."""


class RankLost(GiftError):  # noqa: N818 - a rank is not an error
    """One of the processes that train together failed or was killed."""


class StageLost(GiftError):  # noqa: N818 - a stage is not an error
    """A stage's run on a worker ended, and its output is not there."""


def error_named(kind: str, sentence: str) -> GiftError | None:
    """An error of this tree as another process told it; None when it was none of them."""
    known = globals().get(kind)
    if isinstance(known, type) and issubclass(known, GiftError):
        return known(sentence)
    return None
