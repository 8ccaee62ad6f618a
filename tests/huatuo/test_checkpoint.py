"""Checkpoint folders: whole or not at all, and proved by their manifest."""

import pytest

from huatuo.errors import Damaged
from huatuo.models.checkpoint import MANIFEST, read_manifest, replacing, save_manifest, verify


def written(folder, text="weights"):
    with replacing(folder) as fresh:
        (fresh / "model.safetensors").write_text(text)
        save_manifest(fresh, {"stage": "test"})
    return folder


def test_a_saved_folder_verifies_and_keeps_its_details(tmp_path):
    folder = written(tmp_path / "one")
    assert verify(folder)["stage"] == "test"
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "harm, says",
    [
        (lambda f: (f / "model.safetensors").write_text("weightz"), "altered"),
        (lambda f: (f / "model.safetensors").write_text("w"), "bytes"),
        (lambda f: (f / "model.safetensors").unlink(), "missing"),
        (lambda f: (f / MANIFEST).unlink(), "incomplete"),
        (lambda f: (f / MANIFEST).write_text("{"), "cannot be read"),
        (lambda f: (f / MANIFEST).write_text("[]"), "not a manifest"),
        (
            lambda f: (f / MANIFEST).write_text('{"format": 1, "files": {"../x": {}}}'),
            "outside",
        ),
    ],
)
def test_harm_is_named(tmp_path, harm, says):
    folder = written(tmp_path / "one")
    harm(folder)
    with pytest.raises(Damaged, match=says):
        verify(folder)


def test_a_failed_write_leaves_the_old_folder_and_no_litter(tmp_path):
    folder = written(tmp_path / "one", "old")
    with pytest.raises(OSError, match="full"), replacing(folder) as fresh:
        (fresh / "model.safetensors").write_text("half")
        raise OSError("disk full")
    assert (folder / "model.safetensors").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_second_write_replaces_the_first(tmp_path):
    written(tmp_path / "one", "old")
    folder = written(tmp_path / "one", "new")
    assert (folder / "model.safetensors").read_text() == "new"
    assert read_manifest(folder)["format"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
