"""What Prefect's pages show of each output: the only place that makes its artifacts.

Each artifact's content is built by a function without Prefect; the `publish_*` functions read what
it needs and hand it over. Outside a Prefect run they do nothing, so that stage functions work as
plain functions. Prompts and class names are untrusted: they are escaped wherever they are shown.
"""

from collections.abc import Iterable, Sequence

from gift_core.gate import GatePolicy
from tasks.adapt import read_history as read_adaptation
from tasks.adapter_page import adapted_words, adapter_markdown
from tasks.curves import History, first_and_last, loss_figure, steering_figure
from tasks.figures import accuracy_figure, contact_sheet, data_uri, drift_figure
from tasks.images import decode_rgb
from tasks.manifests import (
    AdapterManifest,
    FisherManifest,
    Manifest,
    ModelManifest,
    PairsManifest,
    RunRecord,
    ScoresManifest,
    SequenceManifest,
)
from tasks.output_page import output_key_of, output_markdown
from tasks.progress import duration
from tasks.promote import verdict_rows
from tasks.publishing import Row, escaped, publish_markdown, publish_table, publish_view
from tasks.score_rows import scores_rows
from tasks.sequence_page import sequence_page, state_of
from tasks.store.history import read_history
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, find_output, read_run_record, read_verified
from tasks.store.shards import ReplayPair, read_shard

MAX_SHEET_BYTES = 180_000
"""Leaves a markdown artifact below 300 KB in base64 with its text: Prefect keeps it in its
database."""


def publish_output(
    store: ObjectStore, produced: Produced[Manifest], made_from: Iterable[Manifest | None] = ()
) -> None:
    """Show an output of any stage: its place, inputs with links to theirs, files, settings.

    `made_from` are the manifests that the stage was given; what is None was not needed.
    """
    manifest = produced.manifest
    publish_view(
        output_key_of(manifest),
        f"{manifest.stage} {manifest.name}: settings, inputs, files",
        lambda: output_markdown(
            store,
            produced,
            read_run_record(store, manifest),
            [each for each in made_from if each is not None],
        ),
    )


def publish_pairs(store: ObjectStore, manifest: PairsManifest) -> None:
    """Show a task's replay pairs: counts, a contact sheet of the first ones, their prompts."""
    publish_markdown(
        f"pairs-{manifest.task}",
        f"Replay pairs made before {manifest.task} is learnt",
        lambda: pairs_markdown(manifest, sample_pairs(store, manifest, 48)),
    )


def publish_model(store: ObjectStore, manifest: ModelManifest) -> None:
    """Show how a task was learnt: loss curves, losses, time. There is nothing for theta_0."""
    if manifest.task is None:
        return
    publish_markdown(
        f"model-{manifest.task}",
        f"How {manifest.task} was learnt",
        lambda: model_markdown(
            manifest, read_history(store, manifest), read_run_record(store, manifest)
        ),
    )


def publish_adapter(store: ObjectStore, manifest: AdapterManifest) -> None:
    """Show how the generator was adapted to a task: its loss, and which images it learnt."""
    publish_markdown(
        f"adapter-{manifest.task}",
        f"How the generator was adapted to {manifest.task}",
        lambda: adapter_markdown(manifest, read_adaptation(store, manifest)),
    )


def publish_fisher(manifest: FisherManifest) -> None:
    """Show how far each block moved: a table and a figure."""
    words = f"Drift by block while {manifest.name} was learnt"
    publish_table(f"drift-{manifest.name}", words, lambda: drift_rows(manifest))
    publish_markdown(f"drift-figure-{manifest.name}", words, lambda: drift_markdown(manifest))


def publish_scores(manifest: ScoresManifest) -> None:
    """Show one row of the accuracy matrix as a table, a row a data set."""
    after = manifest.after_task
    key = f"accuracy-after-{after}" if after else "accuracy-zero-shot"
    words = f"Accuracy after {after}" if after else "Accuracy of the pretrained model (zero-shot)"
    publish_table(key, words, lambda: scores_rows(manifest))


def publish_verdict(
    sequence: str, policy: GatePolicy, before: ScoresManifest, after: ScoresManifest, stands: bool
) -> None:
    """Show what the gate says of a new model: a row a data set, its rule, whether it held."""
    said = "Let pass" if stands else "Refused"
    publish_table(
        f"verdict-{sequence}-{after.after_task}",
        f"{said} by the gate of {sequence} after {after.after_task}",
        lambda: verdict_rows(policy, before, after),
    )


def publish_state(
    store: ObjectStore,
    sequence: str,
    policy: GatePolicy,
    references: Iterable[str],
    refused: bool,
    report: str | None = None,
) -> None:
    """Show how a sequence stands now, under one key: its latest version is the sequence's page.

    `references` are outputs among which its rows are. What cannot be read is logged.
    """

    def build() -> str:
        state = state_of(store, sequence, policy, references, refused, report)
        return sequence_page(state) if state else f"{escaped(sequence)} has no row yet.\n"

    publish_view(f"sequence-{sequence}", f"Sequence {sequence}: how it stands", build)


def publish_sequence(store: ObjectStore, manifest: SequenceManifest) -> None:
    """Show a whole sequence: the accuracy matrix as a table; metrics, curves, pictures as text."""
    words = f"Sequence {manifest.name}, {manifest.method}"
    publish_table(
        f"accuracy-matrix-{manifest.name}",
        f"{words}: accuracy in percent",
        lambda: matrix_rows(manifest),
    )
    publish_markdown(
        f"sequence-report-{manifest.name}",
        words,
        lambda: sequence_markdown(manifest, _samples(store, manifest, 8)),
    )


def sample_pairs(store: ObjectStore, manifest: PairsManifest, count: int) -> list[ReplayPair]:
    """Read the first `count` replay pairs of a task; prompts were drawn at random, so any will do.

    Only as many shards are read as needed, each verified; StoreError when one is altered.
    """
    pairs: list[ReplayPair] = []
    for ref in manifest.files:
        if len(pairs) >= count:
            break
        pairs += read_shard(read_verified(store, ref), ref.path)
    return pairs[:count]


def pairs_markdown(manifest: PairsManifest, pairs: Sequence[ReplayPair]) -> str:
    """Lay out counts, one contact sheet and a table of the prompts in the order of the sheet."""
    sheet, shown = _fitting_sheet(pairs, columns=8)
    lines = [
        f"## Replay pairs before {escaped(manifest.task)}",
        "",
        f"{manifest.num_pairs:,} pairs kept, {manifest.rejects_in_words}; "
        f"generator {escaped(manifest.generator)}; "
        f"{len(manifest.files)} shards, {_size(manifest)}.{adapted_words(manifest)}",
        "",
        f"The first {len(shown)} pairs, row by row:",
        "",
        f"![replay pairs]({sheet})",
        "",
        "| row | column | prompt | seed |",
        "| ---: | ---: | --- | ---: |",
    ]
    lines += [
        f"| {number // 8 + 1} | {number % 8 + 1} | {escaped(pair.prompt)} | {pair.seed} |"
        for number, pair in enumerate(shown)
    ]
    return "\n".join(lines) + "\n"


def model_markdown(manifest: ModelManifest, history: History, record: RunRecord | None) -> str:
    """Loss curves, a table of first and final losses, and how long it took where that is known."""
    took = (
        f" in {duration(record.seconds)} on {record.device} with {record.num_threads} threads"
        if record
        else ""
    )
    lines = [
        f"## {escaped(manifest.task or manifest.name)}",
        "",
        f"{manifest.num_steps:,} steps{took}; model of {_size(manifest)}.{measured(record)}",
        "",
        f"![loss curves]({data_uri(loss_figure(history))})",
        f"![learning rate and gradient norm]({data_uri(steering_figure(history))})",
        "",
        "| term | first tenth | last tenth |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {label} | {a:.4g} | {b:.4g} |" for label, a, b in first_and_last(history)]
    return "\n".join(lines) + "\n"


def measured(record: RunRecord | None) -> str:
    """Speed, memory and the like, where a run noted them: " Images a second: 812."."""
    known = record.measured if record else {}
    words = [f"{name.replace('_', ' ')}: {value:,.3g}" for name, value in known.items()]
    return f" {'; '.join(words).capitalize()}." if words else ""


def drift_rows(manifest: FisherManifest) -> list[Row]:
    """One row a block, in the model's order."""
    return [
        {
            "block": block.block,
            "parameters": block.num_parameters,
            "distance": float(f"{block.distance:.4g}"),
            "relative, %": float(f"{100 * block.relative:.4g}"),
            "Fisher-weighted": float(f"{block.weighted:.4g}"),
        }
        for block in manifest.drift
    ]


def drift_markdown(manifest: FisherManifest) -> str:
    """Lay out the drift figure with one sentence on how to read it."""
    return (
        f"## Drift while {escaped(manifest.name)} was learnt\n\n"
        f"![drift by block]({data_uri(drift_figure(manifest.drift))})\n\n"
        "Left: how far a block moved, over its norm before. Right: the same move where the Fisher "
        "diagonal of the replay pairs says that it matters.\n"
    )


def matrix_rows(manifest: SequenceManifest) -> list[Row]:
    """Lay out the accuracy matrix in percent, the zero-shot row first, the panel's columns last."""
    rows = [manifest.zero_shot, *manifest.matrix]
    names = ["zero-shot", *(f"after {task}" for task in manifest.tasks)]
    table: list[Row] = []
    for number, (name, values) in enumerate(zip(names, rows, strict=True)):
        row: Row = {"model": name}
        row |= {task: round(value, 2) for task, value in zip(manifest.tasks, values, strict=True)}
        row |= {panel: round(column[number], 2) for panel, column in manifest.panel.items()}
        table.append(row)
    return table


def sequence_markdown(
    manifest: SequenceManifest, samples: Sequence[tuple[str, Sequence[ReplayPair]]]
) -> str:
    """Metrics, accuracy over time, and a contact sheet with a row of replay pairs for each task."""
    rows = [manifest.zero_shot, *manifest.matrix]
    figure = data_uri(accuracy_figure(manifest.tasks, rows, manifest.panel))
    lines = [f"## {escaped(manifest.name)} ({escaped(manifest.method)})", ""]
    lines += ["| metric | percent |", "| --- | ---: |"]
    lines += [
        f"| {escaped(name)} | {'-' if value is None else f'{value:.2f}'} |"
        for name, value in manifest.metrics.items()
    ]
    lines += ["", f"![accuracy over time]({figure})", ""]
    if samples:
        columns = max(len(pairs) for _, pairs in samples)
        sheet, shown = _fitting_sheet([pair for _, pairs in samples for pair in pairs], columns)
        tasks = ", ".join(escaped(task) for task, _ in samples[: -(-len(shown) // columns)])
        lines += [f"Replay pairs, one row a task ({tasks}):", "", f"![replay pairs]({sheet})", ""]
    return "\n".join(lines)


def _samples(
    store: ObjectStore, manifest: SequenceManifest, count: int
) -> list[tuple[str, list[ReplayPair]]]:
    found = [find_output(store, PairsManifest, *ref.split("/")) for ref in manifest.pairs]
    return [(pairs.task, sample_pairs(store, pairs, count)) for pairs in found if pairs is not None]


def _fitting_sheet(pairs: Sequence[ReplayPair], columns: int) -> tuple[str, Sequence[ReplayPair]]:
    """Draw a sheet that fits an artifact, of half as many pairs if need be; and say of which."""
    while True:
        images = [decode_rgb(pair.image_bytes, f"replay pair {pair.index}") for pair in pairs]
        sheet = contact_sheet(images, columns)
        if len(sheet) <= MAX_SHEET_BYTES or len(pairs) <= 1:
            return data_uri(sheet, "image/png"), pairs
        pairs = pairs[: len(pairs) // 2]


def _size(manifest: Manifest) -> str:
    return f"{sum(ref.num_bytes for ref in manifest.files) / 1e6:,.1f} MB"
