"""libwebp's lossy encoder, called by its own interface (webp/encode.h) instead of by Pillow's.

Pillow copies the picture to 4 bytes a pixel, from which libwebp makes the luma and chroma that lossy coding reads, and
holds all three until the end. Here libwebp makes them from a few rows at a time: 1.5 bytes a pixel beside the picture,
in less time, and the same file. It is the library that Pillow is linked with. Where its interface is not found or is
another one, `is_available` says so, and Pillow's call is there.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_uint8, c_uint32, c_void_p
from typing import Any

from PIL import Image

ABI = 0x020F  # WEBP_ENCODER_ABI_VERSION of libwebp 1.2: the library refuses another major version than its own
MORE = 256  # bytes: a later minor version may have more members, which its functions set to zero
ROWS = 64  # imported at once: an even number, since two rows share their chroma
# VP8_ENC_ERROR_OUT_OF_MEMORY, VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY, VP8_ENC_ERROR_BAD_WRITE (the file is written to
# memory), and where no error is named.
OUT_OF_MEMORY = (1, 2, 8, 0)


class _Config(ctypes.Structure):
    """struct WebPConfig, of which the rest keeps its defaults."""

    _fields_ = (("lossless", c_int), ("quality", c_float), ("method", c_int), ("rest", c_uint8 * 500))


class _Picture(ctypes.Structure):
    """struct WebPPicture."""

    _fields_ = (
        ("use_argb", c_int),
        ("colorspace", c_int),
        ("width", c_int),
        ("height", c_int),
        ("y", c_void_p),
        ("u", c_void_p),
        ("v", c_void_p),
        ("y_stride", c_int),
        ("uv_stride", c_int),
        ("a", c_void_p),
        ("a_stride", c_int),
        ("pad1", c_uint32 * 2),
        ("argb", c_void_p),
        ("argb_stride", c_int),
        ("pad2", c_uint32 * 3),
        ("writer", c_void_p),
        ("custom_ptr", c_void_p),
        ("extra_info_type", c_int),
        ("extra_info", c_void_p),
        ("stats", c_void_p),
        ("error_code", c_int),
        ("progress_hook", c_void_p),
        ("user_data", c_void_p),
        ("pad3", c_uint32 * 3),
        ("pad4", c_void_p),
        ("pad5", c_void_p),
        ("pad6", c_uint32 * 8),
        ("memory", c_void_p),
        ("memory_argb", c_void_p),
        ("pad7", c_void_p * 2),
        ("more", c_uint8 * MORE),
    )


class _Writer(ctypes.Structure):
    """struct WebPMemoryWriter."""

    _fields_ = (
        ("mem", c_void_p),
        ("size", c_size_t),
        ("max_size", c_size_t),
        ("pad", c_uint32),
        ("more", c_uint8 * MORE),
    )


# The arguments of each function. Those that return something return int.
ARGUMENTS = {
    "WebPConfigInitInternal": (POINTER(_Config), c_int, c_float, c_int),
    "WebPPictureInitInternal": (POINTER(_Picture), c_int),
    "WebPPictureAlloc": (POINTER(_Picture),),
    "WebPPictureImportRGB": (POINTER(_Picture), c_char_p, c_int),
    "WebPPictureFree": (POINTER(_Picture),),
    "WebPMemoryWriterInit": (POINTER(_Writer),),
    "WebPMemoryWriterClear": (POINTER(_Writer),),
    "WebPEncode": (POINTER(_Config), POINTER(_Picture)),
}


def _library() -> ctypes.CDLL | None:
    """The library that Pillow's module is linked with: its names are found through the module's file."""
    with suppress(ImportError, OSError, AttributeError):
        from PIL import _webp

        library = ctypes.CDLL(_webp.__file__)
        library.WebPMemoryWrite  # noqa: B018, passed to the library by its address
        for name, arguments in ARGUMENTS.items():
            getattr(library, name).argtypes = arguments
        if library.WebPPictureInitInternal(_Picture(), ABI) and library.WebPConfigInitInternal(_Config(), 0, 75, ABI):
            return library
    return None


_libwebp: Any = _library()


def is_available() -> bool:
    """Whether `lossy` can be called."""
    return _libwebp is not None


def lossy(image: Image.Image, quality: int, effort: int) -> bytes:
    """An RGB picture as the WebP that Pillow makes of it. Raises MemoryError, or ValueError in the words of Pillow."""
    config, writer = _Config(), _Writer()
    _libwebp.WebPConfigInitInternal(config, 0, quality, ABI)
    config.method = effort
    _libwebp.WebPMemoryWriterInit(writer)
    try:
        with _planes(image) as picture:
            picture.writer = ctypes.cast(_libwebp.WebPMemoryWrite, c_void_p).value
            picture.custom_ptr = ctypes.addressof(writer)
            if not _libwebp.WebPEncode(config, picture):
                raise _failure(picture.error_code)
        return ctypes.string_at(writer.mem, writer.size)
    finally:
        _libwebp.WebPMemoryWriterClear(writer)


@contextmanager
def _planes(image: Image.Image) -> Iterator[_Picture]:
    """The picture's luma and chroma."""
    with _picture() as whole, _picture() as part:
        whole.width, whole.height = image.size
        if not _libwebp.WebPPictureAlloc(whole):
            raise _failure(whole.error_code)
        for top in range(0, image.height, ROWS):
            rows = image.crop((0, top, image.width, min(top + ROWS, image.height)))
            part.width, part.height = rows.size
            if not _libwebp.WebPPictureImportRGB(part, rows.tobytes(), 3 * rows.width):
                raise _failure(part.error_code)
            ctypes.memmove(whole.y + top * whole.y_stride, part.y, rows.height * part.y_stride)
            for target, source in ((whole.u, part.u), (whole.v, part.v)):
                ctypes.memmove(target + top // 2 * whole.uv_stride, source, (rows.height + 1) // 2 * part.uv_stride)
        yield whole


@contextmanager
def _picture() -> Iterator[_Picture]:
    """A picture without memory, which is returned at the end."""
    picture = _Picture()
    _libwebp.WebPPictureInitInternal(picture, ABI)
    try:
        yield picture
    finally:
        _libwebp.WebPPictureFree(picture)


def _failure(code: int) -> Exception:
    return MemoryError() if code in OUT_OF_MEMORY else ValueError(f"encoding error {code}")
