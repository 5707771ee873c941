"""Pictures: equal pixels are equal bytes, and hostile files are refused in one sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gift_core.errors import DataError
from tasks.images import MAX_PIXELS, decode_rgb, encode_png
from tests.worlds import png, square


def test_png_round_trip_keeps_every_pixel() -> None:
    picture = square("red", 4)
    data = encode_png(picture)
    assert data == encode_png(Image.fromarray(picture))
    np.testing.assert_array_equal(np.asarray(decode_rgb(data, "x")), picture)


def test_grey_and_transparent_pictures_become_rgb() -> None:
    for mode in ("L", "RGBA", "P", "1"):
        buffer = io.BytesIO()
        Image.new(mode, (4, 5)).save(buffer, format="PNG")
        assert decode_rgb(buffer.getvalue(), "x").mode == "RGB"


def test_a_small_file_that_claims_to_be_huge_is_refused_unread() -> None:
    side = int(MAX_PIXELS**0.5) + 100
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    bomb = b"\x89PNG\r\n\x1a\n" + chunks
    with pytest.raises(DataError, match=r"shelf\.png: "):
        decode_rgb(bomb, "shelf.png")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 900))
def test_damage_is_a_sentence_never_another_error(noise: bytes, cut: int) -> None:
    whole = png(square("blue", 1))
    for data in (noise, whole[:cut], whole[:cut] + noise + whole[cut + len(noise) :]):
        try:
            decode_rgb(data, "file 7")
        except DataError as error:
            assert str(error).startswith("file 7: ")
