"""Image folders: sizes, labels, and images that cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gradstore.data.image_folder
from gradstore.data import open_source, reopen
from gradstore.data.source import ExampleSource
from gradstore.errors import CorruptExampleError, SourceError
from gradstore.testing.source_kit import SourceContract


def draw(path: Path, size: tuple[int, int] = (8, 6), mode: str = "L") -> Path:
    """A picture of noise, the same for the same name."""
    noise = np.random.default_rng(list(path.name.encode())).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        Image.fromarray(noise).convert(mode).save(path)
    return path


def break_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class TestSmallGreyImages(SourceContract):
    def make(self, folder: Path) -> ExampleSource:
        for name in ("b.png", "a.png", "d.bmp", "c.tif"):
            draw(folder / name)
        return open_source(folder)


class TestLabelledImagesOfManySizesWithABrokenOne(SourceContract):
    def make(self, folder: Path) -> ExampleSource:
        for number, name in enumerate(("dog/1.jpg", "cat/x/2.png", "cat/3.webp", "dog/4.gif", "ape/5.PNG")):
            draw(folder / name, (20 + number, 90), "RGB")
        (folder / "cat" / "broken.png").write_bytes(b"no image")
        return open_source(folder, on_corrupt="skip")


def test_ids_are_sorted_relative_paths_and_labels_first_sub_folders(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.png", "a/deep/er/3.png", ".hidden/4.png", "a/.5.png", "a/notes.txt"):
        draw(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("x")
    source = open_source(tmp_path)
    assert source.ids(slice(None)) == ["a/deep/er/3.png", "b/1.png", "b/2.png"]
    assert source.label_names == ["a", "b"]
    np.testing.assert_array_equal(source.labels(slice(None)), [0, 1, 1])
    assert source.paths(np.array([2])) == [str(tmp_path / "b/2.png")]


def test_small_images_of_one_size_are_given_out_as_they_are(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", (64, 10))
    source = open_source(tmp_path)
    assert source.example_shape == (1, 10, 64)
    assert source.notes() == []
    np.testing.assert_array_equal(source.rows(slice(None))[0, 0], np.asarray(Image.open(path)))


@pytest.mark.parametrize(
    ("sizes", "image_size", "shape", "note"),
    [
        (
            [(10, 10), (10, 12)],
            None,
            (1, 64, 64),
            "2 images of 2 sizes are resized to 64x64; choose with --image-size.",
        ),
        ([(65, 10)], None, (1, 64, 64), "1 images of 65x10 pixels are resized to 64x64; choose with --image-size."),
        ([(10, 12)], 16, (1, 16, 16), "1 images of 10x12 pixels are resized to 16x16."),
    ],
)
def test_other_images_are_resized_and_a_note_says_so(
    tmp_path: Path, sizes: list[tuple[int, int]], image_size: int | None, shape: tuple[int, ...], note: str
) -> None:
    for number, size in enumerate(sizes):
        draw(tmp_path / f"{number}.png", size)
    source = open_source(tmp_path, image_size=image_size)
    assert source.rows(slice(None)).shape == (len(sizes), *shape)
    assert source.notes() == [note]


def test_one_colour_image_makes_all_colour(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", mode="L")
    draw(tmp_path / "b.png", mode="RGB")
    rows = open_source(tmp_path).rows(slice(None))
    assert rows.shape == (2, 3, 6, 8)
    np.testing.assert_array_equal(rows[0, 0], rows[0, 2])


def test_images_beside_sub_folders_mean_no_labels(tmp_path: Path) -> None:
    draw(tmp_path / "cat/a.png")
    draw(tmp_path / "b.png")
    source = open_source(tmp_path)
    assert source.label_names is None
    assert "1 images lie beside the sub-folders" in source.notes()[0]


def test_a_single_sub_folder_is_remarked_upon(tmp_path: Path) -> None:
    draw(tmp_path / "train/cat/a.png")
    assert "the label 'train'" in open_source(tmp_path).notes()[0]


def test_a_link_to_its_own_parent_ends(tmp_path: Path) -> None:
    draw(tmp_path / "cat/a.png")
    (tmp_path / "cat/again").symlink_to(tmp_path, target_is_directory=True)
    assert open_source(tmp_path).ids(slice(None)) == ["cat/a.png"]


@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.gif", "b.bmp", "b.webp", "b.tif"])
def test_a_truncated_image_is_refused_by_name(tmp_path: Path, name: str) -> None:
    draw(tmp_path / "a.png", (40, 40))
    break_off(draw(tmp_path / name, (40, 40)))
    with pytest.raises(CorruptExampleError, match=rf"1 of 2 images .* {name} \(.*--on-corrupt skip"):
        open_source(tmp_path)


def test_corrupt_images_are_skipped_when_asked(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    draw(tmp_path / "c.png")
    source = open_source(tmp_path, on_corrupt="skip")
    assert source.ids(slice(None)) == ["a.png", "c.png"]
    assert source.notes() == ["Images left out because they cannot be decoded, 1 in all: b.png (not an image)."]


def test_ten_of_many_corrupt_images_are_named(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02}.png").write_bytes(b"?")
    with pytest.raises(CorruptExampleError, match=r"12 of 12 .*09.png \(not an image\); …\. Repair"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match="none of the 12 images"):
        open_source(tmp_path, on_corrupt="skip")


def test_a_decompression_bomb_is_a_corrupt_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a.png", (40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(CorruptExampleError, match="1600 pixels"):
        open_source(tmp_path)


def test_32_bit_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(CorruptExampleError, match="mode F has 32-bit pixels"):
        open_source(tmp_path)


def test_an_image_broken_after_opening_is_named(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", (40, 40))
    source = open_source(tmp_path)
    break_off(path)
    with pytest.raises(CorruptExampleError, match=r"a\.png' can no longer be decoded"):
        source.rows(slice(None))


def test_reopening_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a.png")
    description = open_source(tmp_path).describe()

    def decoded(path: Path) -> None:
        raise AssertionError(f"{path} was decoded")

    monkeypatch.setattr(gradstore.data.image_folder, "decode", decoded)
    monkeypatch.setattr("gradstore.data.image_survey.decode", decoded)
    assert len(reopen(description)) == 1


def test_reopening_a_folder_with_other_images_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    description = open_source(tmp_path).describe()
    draw(tmp_path / "b.png")
    with pytest.raises(SourceError, match="now holds 2 images where 1 were"):
        reopen(description)


def test_progress_counts_the_images(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    calls: list[int] = []
    open_source(tmp_path, progress=calls.append)
    assert sum(calls) == 2


def test_a_folder_without_images_says_what_it_expects(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no images in .*\.png, \.jpg"):
        open_source(tmp_path)


def test_a_folder_of_array_files_leads_to_the_images_among_them(tmp_path: Path) -> None:
    for name in ("t-labels-idx1-ubyte.gz", "t-images-idx3-ubyte.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceError, match=r"holds 2 array files: give one of them, such as '.*t-images-idx3-ubyte.gz'"):
        open_source(tmp_path)


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a.png").rename(tmp_path / "b\udcff.png")
    with pytest.raises(SourceError, match="not UTF-8"):
        open_source(tmp_path)


def test_an_impossible_size_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    with pytest.raises(SourceError, match="--image-size is 0"):
        open_source(tmp_path, image_size=0)
