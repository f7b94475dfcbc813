from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hetero_client.data.opening import open_source, open_validation
from hetero_common.errors import SettingsError


def images(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(folder / name)
    return f"folder:{folder}"


def test_a_kind_with_a_path_gets_what_follows_its_colon(tmp_path: Path) -> None:
    dataset = images(tmp_path / "a:b", "train/cat/1.png", "test/cat/1.png", "train/dog/1.png")
    source = open_source(dataset, Path("unused"), "train")
    assert (source.classes, source.labels.tolist()) == (("cat", "dog"), [0, 1])


@pytest.mark.parametrize("dataset", ["folder:", "mnist", "digits:8"])
def test_what_is_no_data_set_names_those_that_are(dataset: str) -> None:
    with pytest.raises(
        SettingsError, match=r"^unknown data set .*digits, .*folder:PATH or your own"
    ):
        open_source(dataset, Path("unused"), "train")


def test_a_users_own_set_is_opened_like_ours() -> None:
    source = open_source("support.plug_ins:stripes", Path("unused"), "test")
    assert source.classes == ("red", "green", "blue")


def test_held_out_images_have_the_labels_of_the_device(tmp_path: Path) -> None:
    names = ("train/cat/1.png", "validation/dog/1.png")
    source = open_validation(images(tmp_path, *names), ["dog", "cat"])
    assert source.labels.tolist() == [0]
    with pytest.raises(SettingsError, match="not for choosing a threshold"):
        open_validation("digits", ["dog"])
