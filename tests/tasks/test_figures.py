"""Figures hold every name and number they should, as valid SVG or PNG, byte for byte the same."""

import io
import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from tasks import figures
from tasks.manifests import BlockDrift

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: bytes) -> list[str]:
    """Every text of a figure; the parser also proves that it is well-formed."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own bytes
    return [" ".join("".join(text.itertext()).split()) for text in root.iter(f"{SVG}text")]


def drift(name: str = "visual.conv1") -> list[BlockDrift]:
    return [
        BlockDrift(block=name, num_parameters=9, distance=0.5, relative=0.0125, weighted=3.5),
        BlockDrift(block="text", num_parameters=9, distance=0.0, relative=0.0, weighted=0.0),
    ]


def test_accuracy_figure_names_each_line_at_its_end() -> None:
    rows = [(40.0, 50.0), (90.0, 48.5), (88.25, 95.0)]
    shown = texts(figures.accuracy_figure(["a", "b"], rows, {"held-out": [60.0, 59.0, 58.0]}))
    assert {"zero-shot", "after a", "after b", "accuracy, %"} <= set(shown)
    assert {"a 88.2", "b 95.0", "held-out 58.0"} <= set(shown)


def test_accuracy_figure_of_eleven_tasks_keeps_names_apart() -> None:
    tasks = [f"task-{number}" for number in range(11)]
    svg = figures.accuracy_figure(tasks, [[50.0] * 11] * 12)
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own bytes
    ends = [text for text in root.iter(f"{SVG}text") if (text.text or "").startswith("task-")]
    heights = sorted(float(text.get("y", "0")) for text in ends)
    assert len(heights) == 11
    assert min(np.diff(heights)) > 7.5  # the size of the font, in points


@pytest.mark.parametrize(
    "values", [[50.0], [50.0, 50.0], [10.0, 99.0, 99.5, 99.0, 98.0], [0.0, 0.0, 100.0, 100.0]]
)
def test_names_of_lines_stay_in_order_and_apart(values: list[float]) -> None:
    places = figures._spread(values, 5.0, 100.0)
    by_value = sorted(zip(values, places, strict=True))
    gaps = np.diff([place for _, place in by_value])
    assert np.all(gaps >= 5.0 - 1e-9)
    assert max(places) <= 100.0


def test_drift_figure_shows_both_measures() -> None:
    shown = texts(figures.drift_figure(drift()))
    assert {"visual.conv1", "text", "1.2", "3.5"} <= set(shown)


def test_seconds_figure_shows_time_and_share() -> None:
    shown = texts(figures.seconds_figure({"finetune": 90.0, "evaluate": 30.0}))
    assert {"finetune", "1 min 30 s, 75 %", "30.0 s, 25 %"} <= set(shown)


def test_matrix_figure_shows_every_value_and_marks_what_was_just_learnt() -> None:
    svg = figures.matrix_figure(
        ["zero-shot", "after digits"],
        ["digits", "photos"],
        [[40.25, 51.0], [96.0, 50.5]],
        {"held-out": [62.0, 61.5]},
    )
    shown = texts(svg)
    for value in ("40.2", "51.0", "96.0", "50.5", "62.0", "61.5"):
        assert shown.count(value) == 1
    assert {"zero-shot", "after digits", "digits", "photos", "held-out"} <= set(shown)
    bold = re.findall(rb"font-weight: 700[^<]*>([^<]+)</text>", svg)
    assert bold == [b"96.0"]
    slanted = re.findall(rb"font-style: italic[^<]*>([^<]+)</text>", svg)
    assert slanted == [b"40.2", b"51.0", b"50.5"]
    assert len(svg) < 12_000


def test_equal_records_give_equal_bytes_and_no_date() -> None:
    first, second = (figures.drift_figure(drift()) for _ in range(2))
    assert first == second
    assert b"date" not in first.lower()


def test_global_settings_of_matplotlib_are_left_alone() -> None:
    before = dict(mpl.rcParams)
    figures.seconds_figure({"finetune": 1.0})
    assert dict(mpl.rcParams) == before


def test_names_are_text_not_markup_or_formulas() -> None:
    shown = texts(figures.drift_figure(drift("<script>$x^2$</script>")))
    assert "<script>$x^2$</script>" in shown


def test_tiny_images_are_enlarged_without_blur() -> None:
    image = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
    sheet = np.asarray(Image.open(io.BytesIO(figures.contact_sheet([image] * 3, columns=2))))
    assert sheet.shape == (96 * 2 + 4, 96 * 2 + 4, 3)
    assert np.array_equal(sheet[:96, :96], image.repeat(48, axis=0).repeat(48, axis=1))
    assert np.all(sheet[100:, 100:] == 255)  # no fourth image


def test_large_images_are_reduced() -> None:
    sheet = Image.open(io.BytesIO(figures.contact_sheet([Image.new("RGB", (512, 256))], columns=8)))
    assert sheet.size == (96, 48)


def test_contact_sheet_of_nothing_is_a_picture() -> None:
    assert Image.open(io.BytesIO(figures.contact_sheet([], columns=4))).size == (96, 96)


def test_data_uri() -> None:
    assert figures.data_uri(b"\x00\xff", "image/png") == "data:image/png;base64,AP8="
