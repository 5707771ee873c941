"""Handing artifacts to Prefect: outside a run nothing is built, and a display never fails work."""

import html
import re
from collections.abc import Callable

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from gift_core.errors import GiftError
from tasks.progress import artifact_key, inside_run, run_logger

Row = dict[str, str | int | float]


def publish_markdown(key: str, description: str, build: Callable[[], str]) -> None:
    """Show a text under a key; what it is built from must be there, the server need not take it."""
    if inside_run():
        markdown = build()
        _create(
            lambda: create_markdown_artifact(
                markdown, key=artifact_key(key), description=description, _sync=True
            ),
            key,
        )


def publish_table(key: str, description: str, build: Callable[[], list[Row]]) -> None:
    """Show rows under a key, as `publish_markdown` shows a text."""
    if inside_run():
        table = build()
        _create(
            lambda: create_table_artifact(
                table, key=artifact_key(key), description=description, _sync=True
            ),
            key,
        )


def publish_view(key: str, description: str, build: Callable[[], str]) -> None:
    """Show a text that is only a view: what cannot be read for it is logged, and it is left out."""
    if inside_run():
        try:
            markdown = build()
        except GiftError as error:
            run_logger().warning("artifact %s is not drawn: %s", key, error)
        else:
            publish_markdown(key, description, lambda: markdown)


def escaped(text: str) -> str:
    """Text that markdown and HTML show as it is, on one line, also inside a table."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~!#$])", r"\\\1", plain)


def code(text: str) -> str:
    """Text in the type of code, also inside a table; a backtick in it becomes an apostrophe."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "/")
    return f"`{plain}`" if plain else ""


def link_to(key: str) -> str:
    """Where Prefect's pages show the artifacts of a key, with the runs behind them."""
    return f"/artifacts/key/{artifact_key(key)}"


def _create(create: Callable[[], object], key: str) -> None:
    """Hand an artifact over; a server that does not take it must not fail hours of work."""
    try:
        create()
    except Exception as error:  # whatever Prefect's client raises, it is only a display
        run_logger().warning("artifact %s was not kept: %s", key, error)
