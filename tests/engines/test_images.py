# SPDX-License-Identifier: Apache-2.0
"""Images from files: what is taken, and the one line for everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codesign.emit.manifest import Image as InputImage
from codesign.engines.images import input_buffer, load_images
from codesign.errors import InputError
from codesign.spec import ImageSpec

SPEC = ImageSpec(height=4, width=6, channels=3, patch=2)


def pixels(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pixels())
    assert np.array_equal(load_images(tmp_path / "a.npy", SPEC), pixels())


def test_folder_of_pngs_in_order_of_names(tmp_path: Path) -> None:
    for index, one in enumerate(pixels(3)):
        Image.fromarray(one).save(tmp_path / f"{index}.png")
    (tmp_path / "notes.txt").write_text("not an image", encoding="utf-8")
    assert np.array_equal(load_images(tmp_path, SPEC), pixels(3))


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (pixels().astype(np.float32), r"float32 \[2, 4, 6, 3\]"),
        (np.full((2, 4, 6, 3), np.nan), r"float64 \[2, 4, 6, 3\] with NaN or Inf"),
        (np.full((2, 4, 6, 3), np.inf, np.float32), r"float32 \[2, 4, 6, 3\] with NaN or Inf"),
        (pixels().astype(np.int8), r"int8 \[2, 4, 6, 3\]"),
        (pixels()[:, :3], r"uint8 \[2, 3, 6, 3\]"),
        (pixels()[0], r"uint8 \[4, 6, 3\]"),
        (pixels()[:0], r"uint8 \[0, 4, 6, 3\]"),
        (np.uint8(3), r"uint8 \[\]"),
    ],
)
def test_wrong_size_or_dtype(tmp_path: Path, array: np.ndarray, found: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=rf"a\.npy must be uint8 \[n, 4, 6, 3\], not {found}; resize or convert to it"):
        load_images(tmp_path / "a.npy", SPEC)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x93NUMPY\x01\x00"])
def test_damaged_npy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy must be a whole \.npy file: .*; save it again") as caught:
        load_images(tmp_path / "a.npy", SPEC)
    assert "\n" not in str(caught.value)


def test_truncated_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pixels())
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-10])
    with pytest.raises(InputError, match=r"a\.npy must be a whole \.npy file"):
        load_images(tmp_path / "a.npy", SPEC)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy must be a whole \.npy file"):
        load_images(tmp_path / "a.npy", SPEC)


def test_png_of_another_size_mode_or_damaged(tmp_path: Path) -> None:
    file = tmp_path / "0.png"
    Image.fromarray(pixels()[0][:2]).save(file)
    with pytest.raises(InputError, match=r"0\.png must be uint8 \[4, 6, 3\], not uint8 \[2, 6, 3\]"):
        load_images(tmp_path, SPEC)
    Image.fromarray(pixels()[0]).convert("L").save(file)
    with pytest.raises(InputError, match=r"0\.png must be uint8 \[4, 6, 3\], not uint8 \[4, 6\]"):
        load_images(tmp_path, SPEC)
    file.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(InputError, match=r"0\.png must be a whole PNG"):
        load_images(tmp_path, SPEC)


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold PNG files, and there is none; give another folder"):
        load_images(tmp_path, SPEC)
    for name in ("missing.npy", "picture.jpg"):
        with pytest.raises(InputError, match=rf"must be a \.npy file or a folder of PNGs, and .*{name} is neither"):
            load_images(tmp_path / name, SPEC)


def test_input_buffer_layout() -> None:
    """Patches row major, each flattened (channel, row, column), `pixel - 128`, rows padded with zeros."""
    spec = InputImage(height=4, width=6, channels=3, patch=2, pixel_offset=128, row_bytes=16, bytes=96)
    image = pixels()[0]
    rows = np.frombuffer(input_buffer(image, spec), np.int8).reshape(6, 16)
    for patch in range(6):
        r, c = divmod(patch, 3)
        flat = [int(image[2 * r + y, 2 * c + x, ch]) - 128 for ch in range(3) for y in range(2) for x in range(2)]
        assert rows[patch].tolist() == flat + [0] * 4
