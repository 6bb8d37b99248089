"""What `load_matrix` reads from images and tables: the numbers of the file, or one sentence that says what is wrong."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import lrbias as lb

RAMP = np.array([[0, 13107, 26214], [39321, 52428, 65535]], np.uint16)  # fifths of white
FIFTHS = np.array([[0.0, 0.2, 0.4], [0.6, 0.8, 1.0]])
GREY = (RAMP // 257).astype(np.uint8)
TURNS = {  # what each EXIF orientation makes of the rows and columns of a file
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[:, ::-1],
    7: lambda a: a.T[::-1, ::-1],
    8: lambda a: a.T[::-1],
}


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_grey_values_of_16_bits_keep_all_of_them(work, name):
    Image.fromarray(RAMP).save(name)
    np.testing.assert_allclose(lb.load_matrix(name), FIFTHS, rtol=1e-15)


def test_floating_point_values_stay_as_they_are(work):
    values = np.array([[-3.5, 0.25], [1000.0, 1e-3]], np.float32)
    Image.fromarray(values).save("a.tif")
    np.testing.assert_array_equal(lb.load_matrix("a.tif"), values)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_modes_of_8_bits_are_read_as_grey(work, mode):
    Image.fromarray(GREY).convert(mode).save("a.tif" if mode == "CMYK" else "a.png")
    np.testing.assert_allclose(lb.load_matrix("a.tif" if mode == "CMYK" else "a.png"), FIFTHS, atol=1e-15)


def test_a_single_bit_is_0_or_1(work):
    Image.fromarray(GREY > 100).save("a.png")
    np.testing.assert_array_equal(lb.load_matrix("a.png"), GREY > 100)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", TURNS)
def test_images_are_turned_as_their_orientation_says(work, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RAMP).save(f"a.{suffix}", exif=exif)
    np.testing.assert_allclose(lb.load_matrix(f"a.{suffix}"), TURNS[orientation](FIFTHS), rtol=1e-15)


def _png_of_16_bit_colours():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">6H", *range(0, 6000, 1000))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _hole():
    values = FIFTHS.astype(np.float32)
    values[0, 0] = np.nan
    return Image.fromarray(values)


def _transparent():
    alpha = Image.fromarray(GREY)
    return Image.merge("RGBA", [alpha] * 4)


REFUSED_IMAGES = {
    "32 bits.tif": (lambda path: Image.fromarray(RAMP.astype(np.int32)).save(path), "16 bits of grey"),
    "hole.tif": (lambda path: _hole().save(path), "finite entries only (1 "),
    "transparent.png": (lambda path: _transparent().save(path), "transparent"),
    "colours.png": (lambda path: path.write_bytes(_png_of_16_bit_colours()), "8 bits a channel"),
    "moving.gif": (
        lambda path: Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        "2 images",
    ),
    "huge.png": (lambda path: Image.new("1", (20_000, 20_000)).save(path), "exceeds limit"),
    "large.png": (lambda path: Image.new("1", (10_000, 10_000)).save(path), "exceeds limit"),
    "cut.jpg": (lambda path: _cut(path), "readable .jpg"),
}


def _cut(path):
    Image.fromarray(np.arange(10_000, dtype=np.uint8).reshape(100, 100)).save(path)
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize("name", REFUSED_IMAGES)
def test_an_image_that_would_lose_numbers_is_refused(work, name):
    make, needle = REFUSED_IMAGES[name]
    make(work / name)
    with pytest.raises(lb.InvalidInput) as caught:
        lb.load_matrix(name)
    assert needle in str(caught.value)
    assert "\n" not in str(caught.value)


TABLES = {
    "a.tsv": "1\t2\n3\t4\n",
    "a.csv": "1,2\n3,4\n",
    "spaces.txt": "1 2\n 3   4\n",
    "semicolons.csv": "1;2\n3;4\n",
    "quoted.csv": '"1","2"\n"3","4"\n',
    "comments.csv": "# two columns\n1, 2 # the first\n\n3, 4\n",
    "mark.csv": "\ufeff1,2\n3,4\n",  # as spreadsheets write it
    "umlaut.csv": "# für dich\n1,2\n3,4\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_numbers(work, name):
    (work / name).write_text(TABLES[name], encoding="utf-8")
    np.testing.assert_array_equal(lb.load_matrix(name), [[1, 2], [3, 4]])


REFUSED_TABLES = {
    "empty cells.tsv": ("1\t\t3\n\t5\t6\n", "line 1, column 2 is empty"),
    "empty cell.csv": ("1,2\n3,\n", "line 2, column 2 is empty"),
    "trailing.csv": ("1,2,\n3,4,\n", "line 1, column 3 is empty"),
    "header.csv": ("width,height\n1,2\n", "line 1, column 1 is 'width', not a number"),
    "decimal commas.csv": ("1,5;2,5\n3;4\n", "line 1, column 1 is '1,5', not a number, a decimal comma"),
    "decimal commas.tsv": ("1,5\t2\n3\t4\n", "line 1, column 1 is '1,5', not a number, a decimal comma"),
    "ragged.csv": ("# three\n1,2,3\n\n4,5\n", "line 4 has 2 columns, line 2 has 3"),
    "quoted.csv": ('"1","two"\n', "line 1, column 2 is 'two', not a number"),
    "comments.csv": ("# nothing\n# at all\n", "the file is empty"),
}


@pytest.mark.parametrize("name", REFUSED_TABLES)
def test_a_table_that_is_not_all_numbers_is_refused(work, name):
    text, needle = REFUSED_TABLES[name]
    (work / name).write_text(text)
    with pytest.raises(lb.InvalidInput) as caught:
        lb.load_matrix(name)
    assert needle in str(caught.value)
