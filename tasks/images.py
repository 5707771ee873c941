"""Pictures as bytes and as PIL images, with a bound on what a file may unpack to."""

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from gift_core.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What data sets are made of. Pillow knows forty more, and for EPS it starts another program."""

MAX_PIXELS = 64_000_000
"""About 8000 x 8000; a small file that claims more is a decompression bomb, not a picture."""


def decode_rgb(data: bytes, where: str) -> Image.Image:
    """The picture in RGB (an animation's first), as it lies in the file, whatever its EXIF says.

    DataError naming `where` when it is torn, too large, or none of FORMATS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd but readable headers
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{where}: {image.width} x {image.height} pixels, more than {MAX_PIXELS}; "
                    "scale it down first"
                )
            return image.convert("RGB")
    except DataError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{where}: not a picture that can be read; replace the file") from None
    # Pillow's decoders raise many kinds, and whatever is wrong, the answer is the same.
    except Exception as error:
        raise DataError(f"{where}: a torn picture ({error}); replace the file") from None


def encode_png(image: Image.Image | np.ndarray) -> bytes:
    """PNG bytes of a picture (an array is uint8, (H, W, 3)); equal pixels give equal bytes."""
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()
