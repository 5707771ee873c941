"""What Prefect shows of any output: where it is, what it was made from, its files, its settings."""

from collections.abc import Iterable

from tasks.flat import cut, flat_settings
from tasks.manifests import Manifest, RunRecord
from tasks.progress import duration
from tasks.publishing import code, escaped, link_to
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced

MAX_ROWS = 80
"""Files and settings that are listed; the manifest in the store has them all."""
MAX_CHARACTERS = 200


def output_key_of(manifest: Manifest) -> str:
    """The artifact key of an output: the same whichever run makes or finds it."""
    return f"{manifest.stage}-{manifest.key[:12]}"


def output_markdown(
    store: ObjectStore,
    produced: Produced[Manifest],
    record: RunRecord | None,
    made_from: Iterable[Manifest] = (),
) -> str:
    """Lay out one output; `made_from` are the manifests among its inputs that the stage was given.

    An input that is none of them (data, a generator) is told by its digest alone.
    """
    manifest = produced.manifest
    lines = [
        f"## {escaped(manifest.stage)}: {escaped(manifest.name)}",
        "",
        f"{_told(produced, record)} It is at {code(f'{store.url}/{manifest.directory}')}.",
        "",
        "### Made from",
        "",
        *_inputs(store, manifest, {each.digest: each for each in made_from}),
        "",
        "### Files",
        "",
        *_files(manifest),
        "",
        "### Settings",
        "",
        *_settings(manifest),
        "",
        f"Seed {manifest.seed}; key {code(manifest.key)}; manifest {code(manifest.digest)}.",
    ]
    return "\n".join(lines) + "\n"


def _told(produced: Produced[Manifest], record: RunRecord | None) -> str:
    how = "Found in the store, nothing was computed" if produced.reused else "Computed by this run"
    if record is None:
        return f"{how}."
    words = f"{duration(record.seconds)} on {record.device}, {record.num_threads} threads"
    return f"{how}; it took {escaped(words)}, from {escaped(record.started)} on."


def _inputs(store: ObjectStore, manifest: Manifest, known: dict[str, Manifest]) -> list[str]:
    if not manifest.inputs:
        return ["Nothing in the store."]
    lines = ["| input | output | place |", "| --- | --- | --- |"]
    for role, digest in list(manifest.inputs.items())[:MAX_ROWS]:
        made = known.get(digest)
        if made is None:
            lines.append(f"| {escaped(role)} | digest {code(digest[:16])} | |")
            continue
        name = f"{escaped(made.stage)} {escaped(made.name)}"
        place = code(f"{store.url}/{made.directory}")
        lines.append(f"| {escaped(role)} | [{name}]({link_to(output_key_of(made))}) | {place} |")
    return [*lines, *_more(len(manifest.inputs))]


def _files(manifest: Manifest) -> list[str]:
    if not manifest.files:
        return ["None: the manifest is all there is."]
    lines = ["| file | bytes | SHA-256 |", "| --- | ---: | --- |"]
    lines += [
        f"| {escaped(ref.name)} | {ref.num_bytes:,} | {code(ref.sha256[:16])} |"
        for ref in manifest.files[:MAX_ROWS]
    ]
    return [*lines, *_more(len(manifest.files))]


def _settings(manifest: Manifest) -> list[str]:
    rows = flat_settings(manifest.settings)
    lines = ["| setting | value |", "| --- | --- |"]
    lines += [
        f"| {escaped(path)} | {escaped(cut(value, MAX_CHARACTERS))} |"
        for path, value in list(rows.items())[:MAX_ROWS]
    ]
    return [*lines, *_more(len(rows))]


def _more(number: int) -> list[str]:
    return ["", f"and {number - MAX_ROWS:,} more"] if number > MAX_ROWS else []
