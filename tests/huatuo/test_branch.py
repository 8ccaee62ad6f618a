"""Branch checkpoints on a tiny BLOOM: bound to their parent, whole or not at all, merged without rounding."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from huatuo.errors import CheckpointError, Damaged, Mismatch, NotFinite, Untrusted
from huatuo.models import branch, checkpoint
from huatuo.models.branch import check_parent, merge, read_branch, save_branch, tensors_of

ROOT = Path(__file__).resolve().parents[2]
TOP = ("transformer.h.1.", "transformer.ln_f.")


def moved(parent: Path, by: float = 0.05) -> dict[str, Tensor]:
    """The top block and final norm of the parent, each a little off."""
    torch.manual_seed(1)
    tensors = load_file(parent / "model.safetensors")
    return {
        n: t.float() + by * torch.randn(t.shape) for n, t in tensors.items() if n.startswith(TOP)
    }


def saved(folder: Path, parent: Path, by: float = 0.05, **more: Any) -> Path:
    """A policy branch of the parent's last block."""
    values: dict[str, Any] = {"kind": "policy", "blocks": 1, "template": "huatuo-nano"}
    values |= {
        "details": {"temperature": 1.5},
        "manifest": {"stage": "rl", "data": {"a": "0" * 64}},
    }
    save_branch(folder, moved(parent, by), parent=parent, **{**values, **more})
    return folder


def altered(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """The branch with other tensors and a manifest that fits them: a writer's mistake, not damage."""
    tensors = change(load_file(folder / branch.WEIGHTS))
    save_file(tensors, folder / branch.WEIGHTS)
    checkpoint.save_manifest(folder, {"stage": "rl"})
    return folder


def logits(folder: Path) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    with torch.inference_mode():
        return model.eval()(torch.tensor([[5, 6, 7, 8, 9]])).logits


def test_a_branch_comes_back_as_it_was_saved(tiny_checkpoint: Path, tmp_path: Path) -> None:
    info = read_branch(saved(tmp_path / "one", tiny_checkpoint))
    check_parent(info, tiny_checkpoint)
    assert (info.kind, info.blocks, info.template) == ("policy", 1, "huatuo-nano")
    assert info.details == {"temperature": 1.5} and info.parent_path is None
    assert info.manifest["stage"] == "rl" and info.manifest["parent"] == info.parent_sha256
    tensors, wanted = tensors_of(info.folder), moved(tiny_checkpoint)
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def test_the_nano_models_path_is_told_from_the_project(tmp_path: Path) -> None:
    parent = ROOT / "huatuo/nano/hybrid"
    top = {
        name: tensor
        for name, tensor in load_file(parent / "model.safetensors").items()
        if name.startswith(("transformer.h.3.", "transformer.ln_f."))
    }
    values: dict[str, Any] = {"kind": "policy", "blocks": 1, "template": "huatuo-nano"}
    save_branch(tmp_path / "nano", top, parent=parent, **values)
    info = read_branch(tmp_path / "nano")
    assert info.parent_path == "huatuo/nano/hybrid"
    assert branch.parent_folder(info) == parent


def test_a_reward_branch_has_a_head_and_a_policy_branch_has_none(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    tensors = moved(tiny_checkpoint)
    head = {"head.weight": torch.zeros(1, 64), "head.bias": torch.zeros(1)}
    values: dict[str, Any] = {"blocks": 1, "parent": tiny_checkpoint, "template": "huatuo-nano"}
    save_branch(tmp_path / "reward", {**tensors, **head}, kind="reward", **values)
    assert read_branch(tmp_path / "reward").kind == "reward"
    with pytest.raises(Mismatch, match="head"):
        save_branch(tmp_path / "policy", {**tensors, **head}, kind="policy", **values)
    with pytest.raises(Mismatch, match=r"head\.bias is missing"):
        save_branch(tmp_path / "value", {**tensors, "head.weight": head["head.weight"]}, kind="value", **values)  # fmt: skip
    with pytest.raises(Mismatch, match="a reward branch answers nothing and cannot be merged"):
        merge(tmp_path / "reward", tmp_path / "out", tiny_checkpoint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reward"]


@pytest.mark.parametrize(
    ("harm", "kind", "says"),
    [
        (lambda f: (f / "branch.safetensors").write_bytes(b"x" * 5), Damaged, "header"),
        (lambda f: flip(f / "branch.safetensors"), Damaged, "altered"),
        (lambda f: (f / "branch.safetensors").unlink(), Damaged, "missing"),
        (lambda f: (f / "branch.json").unlink(), Damaged, "missing"),
        (lambda f: (f / "branch.json").write_text("{}"), Damaged, "bytes"),
        (lambda f: (f / "manifest.json").unlink(), Damaged, "incomplete"),
        (lambda f: rewrite(f, "{"), Damaged, "is not JSON"),
        (lambda f: rewrite(f, "[]"), Damaged, "does not describe"),
        (lambda f: rewrite(f, kind="magic"), Damaged, "cannot be used"),
        (lambda f: rewrite(f, blocks=0), Damaged, "cannot be used"),
        (lambda f: rewrite(f, blocks="2"), Damaged, "cannot be used"),
        (lambda f: rewrite(f, parent={"path": None, "sha256": "no"}), Damaged, "cannot be used"),
        (lambda f: rewrite(f, format=2), Damaged, "format 2"),
        (lambda f: rewrite(f, auto_map={}), Untrusted, "auto_map"),
        (lambda f: (f / "head.bin").write_bytes(pickle.dumps([1])), Untrusted, "pickles"),
        (lambda f: (f / "model.py").write_text("x"), Untrusted, "code"),
        (lambda f: shutil.copy(f / "branch.safetensors", f / "b.safetensors"), Damaged, "not part"),
        (lambda f: shutil.rmtree(f), Damaged, "no such folder"),
    ],
)
def test_harm_is_named(
    tiny_checkpoint: Path, tmp_path: Path, harm: Callable[[Path], Any], kind: type, says: str
) -> None:
    folder = saved(tmp_path / "one", tiny_checkpoint)
    harm(folder)
    with pytest.raises(kind, match=says) as caught:
        read_branch(folder)
    assert str(folder) in str(caught.value) or folder.name in str(caught.value)


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def rewrite(folder: Path, text: str = "", **keys: Any) -> None:
    """Another branch.json, with a manifest that fits it."""
    about = json.loads((folder / branch.INFO).read_text())
    (folder / branch.INFO).write_text(text or json.dumps({**about, **keys}))
    checkpoint.save_manifest(folder)


NAME = "transformer.h.1.mlp.dense_h_to_4h.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: {n: v for n, v in t.items() if n != NAME}, f"{NAME} of the top 1 blocks is missing"),
        (lambda t: {**t, NAME: t[NAME][:3].clone()}, f"{NAME} has shape"),
        (lambda t: {**t, "stray.weight": t[NAME].clone()}, "stray.weight is not one of the parent's"),
        (lambda t: {**t, NAME.replace("h.1", "h.0"): t[NAME].clone()}, "lies below the top 1 blocks"),
        (lambda t: {**t, "head.weight": torch.zeros(1, 64)}, "belongs to a reward"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_the_parents_top_blocks_are_refused(
    tiny_checkpoint: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    says: str,
) -> None:
    folder = altered(saved(tmp_path / "one", tiny_checkpoint), change)
    with pytest.raises(Mismatch, match=says):
        check_parent(read_branch(folder), tiny_checkpoint)
    with pytest.raises(Mismatch, match=says):
        merge(folder, tmp_path / "out", tiny_checkpoint)
    assert not (tmp_path / "out").exists()


def test_another_parent_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "one", tiny_checkpoint)
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["transformer.ln_f.bias"] += 1e-3
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Mismatch, match="made from a parent with sha256"):
        check_parent(read_branch(folder), other)
    with pytest.raises(Mismatch, match="--parent"):
        merge(folder, tmp_path / "out")


def test_more_blocks_than_the_parent_has_and_nan_are_refused(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(Mismatch, match="3 blocks of a parent that has 2"):
        saved(tmp_path / "one", tiny_checkpoint, blocks=3)
    with pytest.raises(NotFinite, match="holds NaN"):
        saved(tmp_path / "one", tiny_checkpoint, by=float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_merged_is_the_parent_with_the_branch_laid_over(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "one", tiny_checkpoint)
    merge(folder, tmp_path / "whole", tiny_checkpoint)
    wanted = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    wanted.load_state_dict(moved(tiny_checkpoint), strict=False)
    with torch.inference_mode():
        right = wanted.eval()(torch.tensor([[5, 6, 7, 8, 9]])).logits
    assert torch.equal(logits(tmp_path / "whole"), right)
    assert not torch.equal(logits(tiny_checkpoint), right)
    manifest = checkpoint.verify(tmp_path / "whole")
    assert manifest["branch"] == read_branch(folder).sha256 and manifest["data"] == {"a": "0" * 64}
    for name in ("tokenizer.json", "generation_config.json", "config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tiny_checkpoint / name).read_bytes()


def test_a_parent_in_shards_is_merged_shard_by_shard(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = LlamaConfig(vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                        num_attention_heads=2, num_key_value_heads=2)  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(tmp_path / "parent", max_shard_size="20KB")
    assert len(list((tmp_path / "parent").glob("*.safetensors"))) > 1
    whole = LlamaForCausalLM.from_pretrained(tmp_path / "parent").state_dict()
    top = {n: t * 1.5 for n, t in whole.items() if n.startswith(("model.layers.2.", "model.norm."))}
    values: dict[str, Any] = {"kind": "policy", "blocks": 1, "template": "huatuo"}
    save_branch(tmp_path / "one", top, parent=tmp_path / "parent", **values)
    merge(tmp_path / "one", tmp_path / "out", tmp_path / "parent")
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(merged[name], top.get(name, whole[name])) for name in whole)


def test_what_is_no_model_is_never_replaced(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "one", tiny_checkpoint)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    parent = shutil.copytree(tiny_checkpoint, tmp_path / "parent")
    for place in (tmp_path / "home", parent, folder):
        with pytest.raises(CheckpointError, match="something else than an earlier merge"):
            merge(folder, place, parent)
    assert (tmp_path / "home" / "thesis.txt").exists()
    check_parent(read_branch(folder), parent)
    for _ in range(2):  # an earlier merge is replaced
        merge(folder, tmp_path / "whole", parent)


def test_a_parent_whose_file_leaves_the_models_own_prefix_out_as_bloomz_does(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    parent = shutil.copytree(tiny_checkpoint, tmp_path / "parent")
    tensors = load_file(parent / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(short, parent / "model.safetensors", metadata={"format": "pt"})
    values: dict[str, Any] = {"kind": "policy", "blocks": 1, "template": "huatuo-nano"}
    save_branch(tmp_path / "one", moved(tiny_checkpoint), parent=parent, **values)
    merge(tmp_path / "one", tmp_path / "out", parent)
    merge(saved(tmp_path / "two", tiny_checkpoint), tmp_path / "right", tiny_checkpoint)
    assert torch.equal(logits(tmp_path / "out"), logits(tmp_path / "right"))


SAVE = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
import resource, signal
from test_branch import saved
from huatuo.errors import HuatuoError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if {limit}: resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
print("begin", flush=True)
try:
    {loop}saved(Path({folder!r}), Path({parent!r}), by=0.5)
except HuatuoError as error:
    sys.exit(str(error))
"""


def script(folder: Path, parent: Path, *, limit: int = 0, loop: str = "") -> list[str]:
    names = {"root": str(ROOT), "tests": str(Path(__file__).parent), "folder": str(folder)}
    return [sys.executable, "-c", SAVE.format(**names, parent=str(parent), limit=limit, loop=loop)]


def test_a_full_disk_leaves_the_branch_before_it_and_no_litter(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """On a tiny tmpfs of its own where one may be mounted, else with a limit on the size of a file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    first = saved(tmp_path / "first", tiny_checkpoint)
    size = sum(file.stat().st_size for file in first.iterdir()) + 8192
    inside = script(disk / "one", tiny_checkpoint)
    shell = (
        f"mount -t tmpfs -o size={size} none {disk} && cp -r {first} {disk}/one && {{ "
        f'"$@"; echo "left $? $(ls -A {disk}) $(sha256sum < {disk}/one/{branch.WEIGHTS})"; }}'
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", shell, "sh", *inside],
                          capture_output=True, text=True, check=False)  # fmt: skip
    wanted = checkpoint.sha256_of(first / branch.WEIGHTS)
    if "begin" in done.stdout:
        assert f"left 1 one {wanted}" in done.stdout, done
    else:
        shutil.copytree(first, disk / "one")
        limited = script(disk / "one", tiny_checkpoint, limit=20_000)
        done = subprocess.run(limited, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and [path.name for path in disk.iterdir()] == ["one"], done
        assert read_branch(disk / "one").sha256 == wanted
    assert "cannot be saved" in done.stderr and "unchanged" in done.stderr


@pytest.mark.parametrize("delay_s", [0.0, 0.08])
def test_a_killed_save_leaves_a_whole_branch(
    tiny_checkpoint: Path, tmp_path: Path, delay_s: float
) -> None:
    folder = saved(tmp_path / "models" / "one", tiny_checkpoint)
    command = script(folder, tiny_checkpoint, loop="while True: ")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begin\n"
        time.sleep(0.05 + delay_s)
        os.kill(writer.pid, signal.SIGKILL)
    check_parent(read_branch(folder), tiny_checkpoint)
    saved(folder, tiny_checkpoint)  # the next save clears what the killed one left
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


def test_a_writer_killed_between_its_two_renames_is_undone(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "one", tiny_checkpoint)
    folder.rename(tmp_path / ".one.old")
    assert read_branch(folder).kind == "policy"


def test_the_command_line_shows_and_merges(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, parent = saved(tmp_path / "one", tiny_checkpoint), ["--parent", str(tiny_checkpoint)]
    assert branch.main(["show", str(folder), *parent]) == 0
    said = capsys.readouterr().out
    assert "14 tensors" in said and "% of the parent's" in said and NAME in said
    assert "checked" in said and "data" in said
    assert branch.main(["show", str(folder)]) == 0
    assert "not checked" in capsys.readouterr().out
    assert branch.main(["merge", str(folder), str(tmp_path / "whole"), *parent]) == 0
    assert branch.main(["merge", str(folder), str(tmp_path / "whole2")]) == 2
    assert "--parent" in capsys.readouterr().err
