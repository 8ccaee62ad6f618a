"""What a conversion refuses, what it leaves behind when it is broken off, and how it goes on."""

import json
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from huatuo.errors import CheckpointError, Damaged, Mismatch, Untrusted
from huatuo.models import registry
from huatuo.models.convert import pickles, run
from huatuo.models.convert.__main__ import main
from huatuo.models.convert.plan import Make
from huatuo.models.convert.run import convert
from huatuo.models.convert.shards import Journal, shards_of, write_shards
from huatuo.models.convert.source import read_source
from tests.huatuo.published import (
    BAICHUAN,
    CHATGLM,
    LORA,
    as_baichuan,
    random_chatglm,
    random_llama,
    random_lora,
    write_folder,
)
from tests.patience import LONG_S, cpu_seconds

ROOT = Path(__file__).resolve().parents[2]


class Payload:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def llama_folder(folder, **how):
    _, tensors, config = random_llama()
    return write_folder(folder, tensors, config, **how)


def changed(folder, change, shards=2):
    """The folder with its tensors (or config) changed."""
    _, tensors, config = random_llama()
    change(tensors, config)
    return write_folder(folder, tensors, config, shards=shards)


FIRST, SECOND = "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"
INDEX = "pytorch_model.bin.index.json"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3000])


def index_names(folder, name):
    table = json.loads((folder / INDEX).read_text())
    table["weight_map"]["model.norm.weight"] = name
    (folder / INDEX).write_text(json.dumps(table))


def link_out(folder):
    outside = folder.parent / "outside.bin"
    (folder / SECOND).rename(outside)
    (folder / SECOND).symlink_to(outside)


HARM = [
    ("a missing shard", lambda f: (f / SECOND).unlink(), Damaged, f"{SECOND}: missing"),
    ("a truncated zip", lambda f: truncate(f / FIRST), Damaged, FIRST),
    ("an empty shard", lambda f: (f / FIRST).write_bytes(b""), Damaged, FIRST),
    ("text for a shard", lambda f: (f / FIRST).write_text("version https://git-lfs"), Damaged, FIRST),
    ("an index that leads outside", lambda f: index_names(f, "../other.bin"), Untrusted, "other.bin"),
    ("an index of an absolute path", lambda f: index_names(f, "/etc/passwd"), Untrusted, "passwd"),
    ("an index of a strange file", lambda f: index_names(f, "config.json"), Untrusted, "config.json"),
    ("an index that is wrong", lambda f: index_names(f, FIRST), Damaged, "model.norm.weight"),
    ("an index that is no JSON", lambda f: (f / INDEX).write_text("{"), Damaged, INDEX),
    ("an index without shards", lambda f: (f / INDEX).write_text("{}"), Damaged, INDEX),
    ("no index", lambda f: (f / INDEX).unlink(), Damaged, INDEX),
    ("a link that leads outside", link_out, Untrusted, f"{SECOND}: leads out"),
    ("no config", lambda f: (f / "config.json").unlink(), Damaged, "config.json: missing"),
    ("a broken config", lambda f: (f / "config.json").write_text("[1]"), Damaged, "config.json"),
    ("a deep config", lambda f: (f / "config.json").write_text("[" * 100_000), Damaged, "config.json"),
]  # fmt: skip


@pytest.mark.parametrize("harm, kind, says", [h[1:] for h in HARM], ids=[h[0] for h in HARM])
def test_a_harmed_folder_is_refused_by_the_files_name_and_leaves_nothing(
    tmp_path, harm, kind, says
):
    source = llama_folder(tmp_path / "source")
    harm(source)
    with pytest.raises(kind, match=says):
        convert(source, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def drop(name):
    return lambda tensors, config: tensors.pop(name)


def put(name, tensor):
    return lambda tensors, config: tensors.update({name: tensor})


def say(**keys):
    return lambda tensors, config: config.update(keys)


WRONG = [
    ("a missing tensor", drop("model.norm.weight"), Damaged, "model.norm.weight is missing"),
    ("an extra tensor", put("model.extra.weight", torch.ones(3)), Mismatch, "model.extra.weight"),
    ("a wrong shape", put("model.norm.weight", torch.ones(65)), Mismatch, r"norm\.weight has shape \[65\]"),
    ("a wrong vocabulary", say(vocab_size=321), Mismatch, r"embed_tokens\.weight has shape \[320, 64\]"),
    ("whole numbers", put("model.norm.weight", torch.ones(64, dtype=torch.int8)), Mismatch, "quantised"),
    ("a number", put("epoch", 3), Mismatch, "entry epoch is no tensor"),
    ("gaps between rows", put("model.norm.weight", torch.ones(128)[::2]), Mismatch, "norm.weight has gaps"),
    ("an unknown class", say(architectures=["QWenLMHeadModel"]), Mismatch, "QWenLMHeadModel"),
    ("no class", say(architectures=None), Mismatch, "architectures"),
    ("a count that is text", say(hidden_size="64"), Mismatch, "hidden_size"),
    ("a count without end", say(num_hidden_layers=-1), Mismatch, "num_hidden_layers"),
    ("another rotation", put("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(8)), Mismatch, "inv_freq"),
    ("a head that is said to be tied", say(tie_word_embeddings=True), Mismatch, "lm_head.weight is not equal"),
]  # fmt: skip


@pytest.mark.parametrize("change, kind, says", [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_what_the_config_does_not_ask_for_is_refused_by_its_name(tmp_path, change, kind, says):
    source = changed(tmp_path / "source", change)
    with pytest.raises(kind, match=says):
        convert(source, tmp_path / "out", quiet=True)


def test_a_wrong_third_of_baichuan_is_refused(tmp_path):
    _, tensors, _ = random_llama(5)
    tensors = as_baichuan(tensors)
    tensors["model.layers.1.self_attn.W_pack.weight"] = torch.ones(191, 64)
    write_folder(tmp_path / "source", tensors, BAICHUAN)
    with pytest.raises(Mismatch, match=r"layers\.1\.self_attn\.W_pack"):
        convert(tmp_path / "source", tmp_path / "out", quiet=True)


ADAPTERS = [
    ("for another base", {}, random_lora(hidden=32), "another base"),
    ("for a deeper base", {}, random_lora(layers=3), "another base"),
    ("of another rank", {"r": 4}, random_lora(), "no pair of rank 4"),
    ("for other modules", {"target_modules": ["k_proj"]}, random_lora(), "does not name"),
    ("half a pair", {}, {k: v for k, v in random_lora().items() if "0.self_attn.q_proj.lora_B" not in k}, "lora_A only"),
    ("with more", {}, {**random_lora(), "base_model.model.lm_head.weight": torch.ones(320, 64)}, "no part of a LoRA"),
    ("of another kind", {"peft_type": "IA3"}, random_lora(), "IA3"),
    ("without a rank", {"r": None}, random_lora(), "r or lora_alpha"),
    ("of rows, for LLaMA", {"enable_lora": [True, False, True]}, random_lora(), "query_key_value"),
]  # fmt: skip


@pytest.mark.parametrize(
    "said, tensors, says", [a[1:] for a in ADAPTERS], ids=[a[0] for a in ADAPTERS]
)
def test_an_adapter_that_does_not_fit_is_refused(tmp_path, said, tensors, says):
    base = llama_folder(tmp_path / "base")
    how = {"shards": 1, "name": "adapter_config.json", "stem": "adapter_model"}
    source = write_folder(tmp_path / "lora", tensors, {**LORA, **said}, **how)
    with pytest.raises((Mismatch, Damaged), match=says):
        convert(source, tmp_path / "out", base=base, quiet=True)


def test_a_prefix_of_another_depth_is_refused(tmp_path):
    tensors = {
        **random_chatglm(),
        "transformer.prefix_encoder.embedding.weight": torch.ones(5, 3 * 2 * 64),
    }
    write_folder(tmp_path / "source", tensors, {**CHATGLM, "pre_seq_len": 5}, shards=1)
    with pytest.raises(Mismatch, match=r"prefix_encoder\.embedding\.weight has shape"):
        convert(tmp_path / "source", tmp_path / "out", quiet=True)


# Nothing is executed


def payload_in(folder, marker, protocol, legacy):
    folder.mkdir(parents=True, exist_ok=True)
    _, tensors, config = random_llama()
    (folder / "config.json").write_text(json.dumps(config))
    held = {**tensors, "x": Payload(marker)}
    how = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": not legacy}
    torch.save(held, folder / "pytorch_model.bin", **how)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_payload_in_a_pickle_is_named_and_never_run(tmp_path, protocol, legacy):
    payload_in(tmp_path / "source", tmp_path / "executed", protocol, legacy)
    with pytest.raises(Untrusted, match=r"posix\.system.*nothing in it was executed"):
        convert(tmp_path / "source", tmp_path / "out", quiet=True)
    assert not (tmp_path / "executed").exists()


def raw(body):
    """A zip as torch.save writes it, with any pickle."""
    return lambda path: _zip(path, body)


def _zip(path, body, packed=False):
    with zipfile.ZipFile(
        path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    ) as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/data/0", b"\0" * 4096)


def nested():
    """Tuples of tuples: a few bytes that would be 2 ** 200 if they were ever spelled out."""
    body = b"\x80\x02}q\x00)"
    for place in range(1, 200):
        body += b"q" + bytes([place]) + b"h" + bytes([place]) + b"\x86"
    return body + b"K\x01s."


PICKLES = [
    ("a bare payload", pickle.dumps(Payload("/tmp/never")), Untrusted),
    ("eval", b"\x80\x02c__builtin__\neval\nX\x03\x00\x00\x001+1\x85R.", Untrusted),
    ("getattr", b"\x80\x02cbuiltins\ngetattr\n.", Untrusted),
    ("an instance", b"\x80\x02(ios\nsystem\n.", Untrusted),
    ("an object", b"\x80\x02(cos\nsystem\nX\x02\x00\x00\x00lso.", Untrusted),
    ("an extension", b"\x80\x02\x82\x01.", Untrusted),
    ("nested beyond measure", nested(), Damaged),
    ("no end", b"\x80\x02}q\x00", Damaged),
    ("an empty stack", b"\x80\x02s.", Damaged),
    ("no mark", b"\x80\x02t.", Damaged),
    ("an unset place", b"\x80\x02h\x05.", Damaged),
    ("a text longer than the file", b"\x80\x02X\xff\xff\xff\x7fab.", Damaged),
    ("noise", b"\xff\xfe\xfd", Damaged),
    ("a list", b"\x80\x02]q\x00.", Mismatch),
    ("a strange storage", b"\x80\x02(X\x01\x00\x00\x00aK\x01tQ.", Damaged),
]


def test_a_bare_pickle_is_read_no_further_than_its_first_name(tmp_path):
    (tmp_path / "x.bin").write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    with pytest.raises(Untrusted, match=r"posix\.system"):
        pickles.tensors_in(tmp_path / "x.bin")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("body, kind", [p[1:] for p in PICKLES], ids=[p[0] for p in PICKLES])
def test_a_strange_pickle_is_refused_at_once(tmp_path, body, kind):
    _zip(tmp_path / "x.bin", body)

    def refused():
        with pytest.raises(kind, match=r"x\.bin"):
            pickles.tensors_in(tmp_path / "x.bin")

    assert cpu_seconds(refused, 5) < 5


def test_a_packed_zip_is_refused_before_it_is_unpacked(tmp_path):
    _zip(tmp_path / "x.bin", b"\x80\x02}.", packed=True)
    with pytest.raises(Damaged, match="packed"):
        pickles.tensors_in(tmp_path / "x.bin")


def test_no_module_of_the_converter_can_unpickle():
    for path in (ROOT / "huatuo" / "models" / "convert").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import pickle\n" not in text and "torch.load" not in text, path.name


CAGE = """
import json, os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from huatuo.models.convert import cage
how = cage.enter(Path({folder!r}))
tried = {{}}
def attempt(name, call):
    try:
        call()
        tried[name] = "done"
    except BaseException as error:
        tried[name] = type(error).__name__
import pickle, socket, subprocess
attempt("socket", lambda: socket.socket())
attempt("connect", lambda: socket.create_connection(("127.0.0.1", {port}), 1))
attempt("program", lambda: subprocess.run(["true"]))
attempt("system", lambda: os.system("true"))
attempt("fork", lambda: os.fork())
attempt("pickle", lambda: pickle.loads({body!r}))
attempt("write", lambda: open({outside!r}, "w"))
attempt("own", lambda: open(os.path.join({folder!r}, "x"), "w"))
print(json.dumps({{"how": how, "tried": tried, "environment": sorted(os.environ)}}))
"""


def test_the_reading_process_reaches_no_network_no_program_and_no_other_file(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        code = CAGE.format(
            root=str(ROOT), folder=str(tmp_path), port=server.getsockname()[1],
            body=pickle.dumps(Payload(tmp_path / "executed")), outside=str(tmp_path.parent / "outside"),
        )  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], env={}, capture_output=True, text=True
        )
    said = json.loads(done.stdout)
    refused = ("socket", "connect", "program", "system", "fork", "pickle", "write")
    assert {name: said["tried"][name] for name in refused} == dict.fromkeys(
        refused, "PermissionError"
    )
    assert said["tried"]["own"] == "done" and set(said["environment"]) <= {"LC_CTYPE"}
    assert "namespace" in said["how"]


def test_the_reading_process_gets_no_secret_of_the_caller(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-seen")
    seen = {}
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **how: seen.update(how) or real(*a, **how))
    convert(llama_folder(tmp_path / "source"), tmp_path / "out", quiet=True)
    assert set(seen["env"]) == {"LC_ALL", "OMP_NUM_THREADS"}


# The folder that is written


def test_a_folder_that_holds_something_is_never_written_over(tmp_path):
    source = llama_folder(tmp_path / "source")
    (tmp_path / "out").mkdir()
    convert(source, tmp_path / "out", quiet=True)  # empty is fine
    with pytest.raises(CheckpointError, match="not empty"):
        convert(source, tmp_path / "out", quiet=True)
    with pytest.raises(CheckpointError, match="not empty"):
        convert(source, source, quiet=True)


def test_a_disk_that_is_full_is_said_and_the_same_command_goes_on(tmp_path, monkeypatch):
    source = llama_folder(tmp_path / "source")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    real = subprocess.run

    def small(*given, **how):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

        return real(*given, **how, preexec_fn=limit)

    monkeypatch.setattr(subprocess, "run", small)
    with pytest.raises(CheckpointError, match="same command again"):
        convert(source, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(subprocess, "run", real)
    convert(source, tmp_path / "out", quiet=True)
    registry.check_folder(tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


def big_folder(folder, layers=40):
    _, tensors, config = random_llama(num_hidden_layers=layers)
    return write_folder(folder, tensors, config, shards=4), tensors


STILL = """
import sys; from huatuo.models.convert import run; from huatuo.models.convert.__main__ import main
run._START = '''import sys, time; sys.path.insert(0, sys.argv[1]); from huatuo.models.convert.shards import Journal
save = Journal.save
Journal.save = lambda journal: (save(journal), len(journal.shards) < {shards} or time.sleep(3600))
''' + run._START
main(sys.argv[1:])
"""


def kill_after(shards, source, out):
    """Kills the command when this many are in the journal, which it returns. The reader stands still from there on: else
    it might be quicker than the test, and be done."""
    words = [str(source), str(out), "--shard-bytes", "60000", "--quiet"]
    command = [sys.executable, "-c", STILL.format(shards=shards), *words]
    running = subprocess.Popen(command, cwd=ROOT)
    journal = out.parent / f".{out.name}.partial" / "journal.json"
    while not journal.exists() or len(json.loads(journal.read_text())["shards"]) < shards:
        assert running.poll() is None, "it was over before it could be killed"
        time.sleep(0.01)
    children = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert children and not psutil.wait_procs(children, LONG_S)[1], "a child goes with its parent"
    return journal


def test_after_a_kill_the_same_command_goes_on_and_keeps_what_was_finished(tmp_path):
    source, tensors = big_folder(tmp_path / "source")
    journal = kill_after(3, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    finished = json.loads(journal.read_text())["shards"]
    states = {name: (journal.parent / name).stat().st_mtime_ns for name in finished}
    report = convert(source, tmp_path / "out", shard_bytes=60_000, quiet=True)
    assert report.kept == len(finished) < report.shards
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in finished} == states
    out = {n: t for f in registry.check_folder(tmp_path / "out") for n, t in load_file(f).items()}
    assert all(torch.equal(out[name], tensor) for name, tensor in tensors.items())


def test_what_was_harmed_after_a_kill_is_written_again(tmp_path):
    source, tensors = big_folder(tmp_path / "source", layers=4)
    makes = [Make(t.name, t.dtype, t.shape, t) for t in read_source(source).tensors.values()]
    shards = shards_of(makes, 60_000)
    (tmp_path / "partial").mkdir()

    def write():
        return write_shards(
            shards, tmp_path / "partial", Journal.open(tmp_path / "partial", "k"), lambda _: None
        )

    assert write() == 0
    first, second, *_ = shards
    harmed = bytearray((tmp_path / "partial" / first.name).read_bytes())
    harmed[-1] ^= 1
    (tmp_path / "partial" / first.name).write_bytes(harmed)
    (tmp_path / "partial" / second.name).unlink()
    assert write() == len(shards) - 2
    out = {n: t for one in shards for n, t in load_file(tmp_path / "partial" / one.name).items()}
    assert all(torch.equal(out[name], tensor) for name, tensor in tensors.items())


def test_another_source_does_not_go_on_with_the_shards_of_the_first(tmp_path):
    first, _ = big_folder(tmp_path / "first")
    kill_after(1, first, tmp_path / "out")
    _, tensors, config = random_llama(99)
    write_folder(tmp_path / "second", tensors, config)
    report = convert(tmp_path / "second", tmp_path / "out", quiet=True)
    assert (
        report.kept == 0
        and load_file(tmp_path / "out" / "model.safetensors").keys() == tensors.keys()
    )


def test_two_at_once_do_not_write_the_same_folder(tmp_path):
    source = llama_folder(tmp_path / "source")
    (tmp_path / ".out.partial").mkdir()
    held = threading.Event()
    with run._alone(tmp_path / ".out.partial"):
        held.set()
        with pytest.raises(CheckpointError, match="another conversion"):
            convert(source, tmp_path / "out", quiet=True)


def test_the_hubs_own_links_to_its_blobs_are_followed(tmp_path):
    _, tensors, config = random_llama()
    home = tmp_path / "models--x--y"
    (home / "blobs").mkdir(parents=True)
    snapshot = home / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    save_file(tensors, home / "blobs" / "1f")
    (home / "blobs" / "2f").write_text(json.dumps(config))
    (snapshot / "model.safetensors").symlink_to("../../blobs/1f")
    (snapshot / "config.json").symlink_to("../../blobs/2f")
    convert(snapshot, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out" / "model.safetensors").is_symlink()


def test_the_command_says_in_one_line_why_not_and_in_a_few_what_it_did(tmp_path, capfd):
    source = llama_folder(tmp_path / "source")
    assert main([str(source), str(tmp_path / "out")]) == 0
    told = capfd.readouterr()
    assert "sha256" in told.out and "network" in told.out and "100%" in told.err
    assert main([str(source), str(tmp_path / "out")]) == 1
    assert capfd.readouterr().err.startswith("convert: ")
    with pytest.raises(SystemExit):
        main([str(source), str(tmp_path / "x"), "--layout", "nonsense"])
