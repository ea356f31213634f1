"""derived: images changed in one respect, against Pillow and by what must not change."""

import numpy as np
import pytest
import torch
from PIL import Image

from gencore import data, derived


def pictures(channels, size, n=3):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_enlarged_is_pillows_bilinear_resize():
    x = pictures(1, 28)
    expected = [Image.fromarray(image[0].numpy()).resize((32, 32), Image.BILINEAR) for image in x]
    found = derived.enlarged(x)
    assert found.shape == (3, 1, 32, 32)
    np.testing.assert_allclose(found[:, 0], np.stack([np.asarray(e) for e in expected]), atol=1e-6)


def test_grey_is_pillows_luma():
    x = (pictures(3, 8) * 255).round().byte()
    expected = [Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L") for image in x]
    found = derived.grey(x / 255) * 255
    assert found.shape == (3, 1, 8, 8)
    assert (
        np.abs(found[:, 0].numpy() - np.stack([np.asarray(e, float) for e in expected])).max() < 1
    )


def test_smooth_keeps_what_is_even_and_removes_what_alternates():
    even = torch.full((1, 3, 32, 32), 0.3)
    torch.testing.assert_close(derived.smooth(even), even)
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    inside = derived.smooth(board.float().expand(1, 3, 32, 32))[..., 2:-2, 2:-2]
    assert (inside - 0.5).abs().max() < 0.01
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    assert (derived.smooth(ramp) - ramp)[..., 3:-3].abs().max() < 1e-3, "slow changes stay"


def test_smooth_takes_most_of_the_sharpness_away():
    from gencore import metrics

    x = pictures(3, 32)
    assert metrics.sharpness(derived.smooth(x)) < 0.1 * metrics.sharpness(x)


@pytest.mark.parametrize("name", [name for name, row in data.TABLE.items() if row.of])
def test_a_computed_dataset_has_the_labels_and_the_flag_of_the_one_it_comes_from(name, monkeypatch):
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    row, found = data.TABLE[name], data.load(name)
    before = data.load(row.of)
    assert found.shape == row.shape and found.train.images.dtype == torch.uint8
    assert torch.equal(found.train.labels, before.train.labels)
    assert found.stand_in and not found.own and found.ruler == row.ruler
    expected = row.change(before.test.images[:5] / 255) * 255
    assert (found.test.images[:5] - expected).abs().max() <= 0.5 + 1e-4, "rounded, and no more"


def test_its_images_are_brought_to_the_shape_of_their_ruler(monkeypatch):
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    assert data.load("cifar10-grey").resized and data.load("mnist-32").resized
    assert not data.load("cifar10-smooth").resized and not data.load("mnist").resized


def test_where_it_lies_is_where_its_source_lies():
    assert data.where("mnist-32") == data.where("mnist")
