"""Reinforcement learning whose answers come from a server: what it is sent, what it says, and every way it may fail."""

import copy
import csv
import json
import re
import stat

import pytest
import torch
from safetensors.torch import load_file

from huatuo import toml
from huatuo.errors import (
    CheckpointError,
    ConfigError,
    Mismatch,
    NotFinite,
    Refused,
    Timeout,
    Truncated,
    Unavailable,
)
from huatuo.models import branch as branches
from huatuo.models.trunk import load_trunk
from huatuo.toml import ROOT, read_toml
from tests.training import test_rl_stage as stage
from tests.training import test_scale_out as scale_out
from tests.training.vllm_server import VllmServer
from training import rl, rl_step
from training.objectives import clipped_gain


@pytest.fixture
def project(tmp_path, monkeypatch):
    """As in test_rl_stage: a small BLOOM, a reward model of random heads, twelve prompts."""
    for module in (rl, toml, branches):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    stage.make(tmp_path)
    return tmp_path


place = scale_out.place
"""The fixture: a folder inside the project."""


@pytest.fixture
def server(project):
    with VllmServer(project / "parent") as server:
        yield server


def config_of(project, server, *, table=None, **changes):
    stage.config_of(project, **{"algorithm": "rloo", "prompts_per_step": 2, **changes})
    keys = {"base_url": server.url, "model": "tiny", "weights": "shared", "gap": 1e-4, **(table or {})}  # fmt: skip
    file = project / "rl.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    text = file.read_text(encoding="utf-8")
    file.write_text("\n".join([text, "[rollout_server]", *lines]), encoding="utf-8")
    return read_toml(file, rl.RlConfig, roots=(project,))


def rows_of(file):
    with file.open(encoding="utf-8") as lines:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(lines)]


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_a_run_with_a_server_learns_from_its_answers_alone(project, server, algorithm, monkeypatch):
    monkeypatch.setattr(rl_step, "sample", lambda *_: pytest.fail("answered ourselves"))
    summary = rl.train(config_of(project, server, algorithm=algorithm, steps=2))
    assert summary["steps"] == 2
    rows = rows_of(project / "work/tiny/steps.csv")
    for name in ("reward", "kl", "length", "loss", "entropy", "sampling_gap", "sampling_gap_mean"):
        assert all(row[name] == row[name] and abs(row[name]) < 1e9 for row in rows), name
    assert max(row["sampling_gap"] for row in rows) < 1e-4  # of every token, at every step
    assert rows[0]["kl"] == 0 and rows[1]["kl"] != 0
    assert len(server.asked("/v1/completions")) == 2 * 2
    trunk, _ = load_trunk(project / "parent", 1)
    before, after = trunk.branch_tensors(trunk.policy), branches.tensors_of(project / "out")
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_before_each_step_the_server_holds_the_policy_and_was_sent_whole_blocks_only(
    project, server
):
    parent = load_file(project / "parent/model.safetensors")
    run = rl.start(config_of(project, server, algorithm="rloo"))
    sent = {name for name in parent if re.search(r"\bh\.2\.|\bln_f\.", name)}
    for step in range(2):
        rl_step.take_step(run)
        rl_step.generate(run, rl_step.draw(run))  # sends what the step has made of the policy
        theirs, ours = server.model.state_dict(), run.trunk.model.state_dict()
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)
        assert set(server.files[-1]) == sent and sent < set(parent)
        size = sum(tensor.numel() * 4 for tensor in server.files[-1].values())
        assert size < run.server.sent["sent_mb"] * 1e6 < size + 4000  # and the file's header
        assert len(server.files) == 2 * (step + 1)
    moved = [n for n in sent if not torch.equal(server.files[-1][n], parent[n])]
    assert moved
    order = [path for path, _ in server.requests[-2 - 4 : -2]]  # two questions at the end
    assert order == ["/pause?mode=wait", "/collective_rpc", "/reset_prefix_cache", "/resume"]
    [last] = (project / "shared/tiny").iterdir()  # older ones are gone
    assert str(last) == server.asked("/collective_rpc")[-1]["kwargs"]["weights_path"]
    assert stat.S_IMODE(last.stat().st_mode) == 0o755


def test_the_server_that_is_another_machine_gets_the_folder_by_its_own_path(project, server):
    (project / "mounted").symlink_to(project / "shared")
    table = {"weights_there": str(project / "mounted"), "dtype": "bfloat16", "gap": 0.1}
    run = rl.start(config_of(project, server, table=table))
    rl_step.take_step(run)
    asked = server.asked("/collective_rpc")[0]["kwargs"]["weights_path"]
    assert asked.startswith(str(project / "mounted/tiny/step-1-"))
    assert {tensor.dtype for tensor in server.files[0].values()} == {torch.bfloat16}


def test_the_ratio_is_one_and_the_states_are_those_of_our_own_generation(project, server):
    run = rl.start(config_of(project, server))
    rollouts = rl_step.generate(run, rl_step.draw(run))
    old, reference, _ = run.learner.score(rollouts)
    assert torch.equal(old, reference)
    again, _ = run.learner.log_probs(run.learner.policy, rollouts)
    torch.testing.assert_close(clipped_gain(again, old, torch.ones_like(old), 0.2), torch.ones_like(old))  # fmt: skip
    for row in range(len(rollouts)):  # each row alone, without padding, through the whole model
        used = rollouts.select([row])
        ids = used.ids[:, : int(used.fed.sum()) + 1]
        table = run.trunk.model(ids).logits[0, :-1].float().log_softmax(-1)
        own = table.gather(1, ids[0, 1:, None]).squeeze(1)[used.answer[0, 1 : ids.shape[1]]]
        torch.testing.assert_close(own, used.sampled[used.answer], atol=1e-4, rtol=0)
        assert bool(used.finished[0]) == (int(ids[0, -1]) == run.tokenizer.eos_token_id)
        assert bool(used.finished[0]) or int(used.lengths[0]) == run.config.max_new_tokens


def test_an_answer_that_was_cut_counts_as_unfinished_and_one_that_ended_as_finished(
    project, server
):
    run = rl.start(config_of(project, server))
    cases = rl_step.draw(run)
    cut = rl_step.generate(run, cases)
    assert not cut.finished.any() and set(cut.lengths.tolist()) == {8}
    third = int(cut.ids[0][cut.answer[0]][2])  # let what the first answer says third be the end
    run.tokenizer.eos_token = run.tokenizer.convert_ids_to_tokens(third)
    ended = rl_step.generate(run, cases)
    assert ended.finished.tolist() == [third in row[said] for row, said in zip(cut.ids, cut.answer, strict=True)]  # fmt: skip
    assert bool(ended.finished[0]) and int(ended.lengths[0]) <= 3
    said = ended.ids[0][ended.answer[0]]
    assert int(said[-1]) == third and torch.equal(said, cut.ids[0][cut.answer[0]][: len(said)])
    assert int(ended.fed[0].sum()) == int(cut.fed[0].sum()) - 8 + len(said)  # the end is not fed
    assert rl_step.take_step(run)["sampling_gap"] < 1e-4


def test_a_server_that_ignores_updates_is_found_out_at_the_next_step(project, server):
    server.reloads = False
    config = config_of(project, server, learning_rate=1e-2, save_steps=1, warm_up=0)
    with pytest.raises(Mismatch, match=r"step 2: the server's log-probabilities are .* from ours"):
        rl.train(config)
    assert torch.load(project / "work/tiny/state.pt", weights_only=True)["step"] == 1
    assert not (project / "out").exists()


def test_a_server_of_another_model_is_found_out_before_anything_is_learned(project, server):
    with torch.no_grad():  # below the blocks that are sent
        server.model.transformer.h[0].mlp.dense_h_to_4h.weight.mul_(1.5)
    with pytest.raises(Mismatch, match=r"step 1: .*another model"):
        rl.train(config_of(project, server))


def test_a_prefix_cache_that_is_kept_is_found_out(project, server):
    server.reset = lambda: {"success": True}
    with pytest.raises(Mismatch, match="step 2"):
        rl.train(config_of(project, server, learning_rate=1e-2, warm_up=0, prompts_per_step=12))


def test_a_resumed_run_is_bit_equal_and_sends_the_current_blocks_first(project, server):
    rl.train(config_of(project, server, algorithm="ppo", steps=3))
    whole = branches.tensors_of(project / "out")
    rl.train(config_of(project, server, algorithm="ppo", steps=2, name="halved"))
    kept = torch.load(project / "work/halved/state.pt", weights_only=True)["policy"]
    with VllmServer(project / "parent") as fresh:  # restarted meanwhile, at another port
        config = config_of(project, fresh, algorithm="ppo", steps=3, name="halved")
        rl.train(config, resume=True)
        for name, tensor in fresh.files[0].items():
            group = "after" if name.split(".")[-2] == "ln_f" else "blocks"
            rest = re.sub(r"^(transformer\.)?(h\.2\.)?", "", name)
            key = f"after.{rest}" if group == "after" else f"blocks.0.{rest}"
            assert torch.equal(kept[key], tensor)
    again = branches.tensors_of(project / "out")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    table, halved = (rows_of(project / f"work/{name}/steps.csv") for name in ("tiny", "halved"))
    for row, same in zip(table, halved, strict=True):
        for name in row:
            if not name.endswith("_s") and row[name] == row[name]:  # no seconds, no NaN
                assert row[name] == same[name], name


def test_a_state_of_a_run_with_a_server_is_not_one_of_a_run_without(project, server):
    rl.train(config_of(project, server, steps=2))
    with pytest.raises(Mismatch, match="other settings"):
        rl.train(stage.config_of(project, algorithm="rloo"), resume=True)


def first(**keys):
    return lambda answer: answer["choices"][0].update(keys)


def said(ids, reason):
    """The first answer is these tokens, with a log-probability each."""
    tokens = [f"token_id:{token}" for token in ids]
    logprobs = {"token_logprobs": [-1.0] * len(ids), "tokens": tokens}
    return first(token_ids=ids, finish_reason=reason, logprobs=logprobs)


def log_prob(value):
    return lambda answer: answer["choices"][0]["logprobs"]["token_logprobs"].__setitem__(0, value)


LATER = [
    ("/v1/completions", lambda _: 500, Refused, "HTTP 500"),
    ("/v1/completions", lambda _: b'{"model": "tiny", "choi', Truncated, "half an answer"),
    ("/v1/completions", lambda _: b"[]", Truncated, "half an answer"),
    ("/v1/completions", lambda a: {**a, "model": "other"}, Mismatch, "answers as other and not as"),
    ("/v1/completions", lambda a: {**a, "choices": None}, Truncated, "no answers"),
    ("/v1/completions", lambda a: a["choices"].pop() and None, Truncated, "1 answers and not 2"),
    ("/v1/completions", first(index=1), Truncated, "2 answers and not 2"),
    ("/v1/completions", first(prompt_token_ids=[5]), Mismatch, "another prompt"),
    ("/v1/completions", first(finish_reason="abort"), Truncated, "broke off .*abort"),
    ("/v1/completions", first(finish_reason=None), Truncated, "broke off .*None"),
    ("/v1/completions", first(token_ids=None), Truncated, "without tokens"),
    ("/v1/completions", first(token_ids=[]), Truncated, "without tokens"),
    ("/v1/completions", first(logprobs=None), Truncated, "without tokens or log-prob"),
    ("/v1/completions", lambda a: a["choices"][0]["logprobs"]["token_logprobs"].pop() and None, Truncated, "half of its log"),
    ("/v1/completions", log_prob(None), Truncated, "half of its log"),
    ("/v1/completions", log_prob(0.5), Truncated, "half of its log"),
    ("/v1/completions", lambda a: a["choices"][0]["logprobs"]["tokens"].reverse(), Mismatch, "log-probabilities of other tokens"),
    ("/v1/completions", lambda a: a["choices"][0]["token_ids"].reverse(), Mismatch, "log-probabilities of other tokens"),
    ("/v1/completions", said([5] * 7 + [10**6], "length"), Mismatch, "tokens that the parent does not know"),
    ("/v1/completions", said([5] * 7 + [-1], "length"), Mismatch, "tokens that the parent does not know"),
    ("/v1/completions", said([5] * 7 + [2.0], "length"), Mismatch, "tokens that the parent does not know"),
    ("/v1/completions", said([5] * 8, "stop"), Mismatch, "end mark"),
    ("/v1/completions", said([5] * 3, "length"), Truncated, "cut after 3"),
    ("/v1/completions", said([5] * 9, "length"), Truncated, "cut after 9"),
    ("/pause", lambda _: 500, Refused, "step 2: the changed blocks are not loaded: .*/pause: HTTP 500"),
    ("/collective_rpc", lambda _: 500, Refused, "step 2: the changed blocks are not loaded: .*/collective_rpc: HTTP 500"),
    ("/collective_rpc", lambda _: {"results": []}, Refused, "step 2: .*no worker"),
    ("/reset_prefix_cache", lambda _: {"success": False}, Refused, "step 2: .*prefix cache"),
    ("/resume", lambda _: 404, Unavailable, "step 2: .*VLLM_SERVER_DEV_MODE=1"),
]  # fmt: skip


def falsify(path, change):
    """A Change that falsifies the answers of one path."""

    def say(asked, answer):
        if asked != path:
            return answer
        answer = copy.deepcopy(answer)
        made = change(answer)
        return answer if made is None else made

    return say


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A run after its first step, with its server."""
    folder = tmp_path_factory.mktemp("started")
    stage.make(folder)
    with VllmServer(folder / "parent") as server:
        with pytest.MonkeyPatch.context() as patch:
            for module in (rl, toml, branches):
                patch.setattr(module, "ROOT", folder)
            run = rl.start(config_of(folder, server, prompts_per_step=1))
        rl_step.take_step(run)
        yield run, server


@pytest.mark.parametrize("path, change, error, words", LATER, ids=[f"{p}-{w}" for p, _, _, w in LATER])  # fmt: skip
def test_a_failure_on_the_way_is_named_and_never_an_answer(started, path, change, error, words):
    run, server = started
    before = {name: tensor.clone() for name, tensor in run.trunk.policy.state_dict().items()}
    server.change = falsify(path, change)
    with pytest.raises(error, match=words):
        rl_step.take_step(run)
    assert run.step == 1
    after = run.trunk.policy.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    server.change = lambda path, answer: answer
    assert len(rl_step.generate(run, rl_step.draw(run))) == 2  # the next update puts it right


@pytest.mark.parametrize("path", ["/collective_rpc", "/v1/completions"])
def test_after_a_failure_the_run_goes_on_as_if_there_had_been_none(project, server, path):
    rl.train(config_of(project, server, save_steps=1, steps=2, name="smooth"))
    smooth = branches.tensors_of(project / "out")
    (project / "out").rename(project / "smooth")
    config = config_of(project, server, save_steps=1, steps=2)
    calls = len(server.asked(path))

    def fails(asked, answer):
        late = len(server.asked(path)) - calls > (1 if path == "/collective_rpc" else 3)
        return 500 if asked == path and late else answer

    server.change = fails
    with pytest.raises(Refused, match="HTTP 500"):
        rl.train(config)
    if path == "/collective_rpc":  # half-loaded weights answer nobody
        assert not server.running.is_set()
        assert [p.name[:7] for p in (project / "shared/tiny").iterdir()] == ["step-1-"]
    assert torch.load(project / "work/tiny/state.pt", weights_only=True)["step"] == 1
    assert not (project / "out").exists()
    server.change = lambda path, answer: answer
    rl.train(config, resume=True)
    rough = branches.tensors_of(project / "out")
    assert all(torch.equal(smooth[name], rough[name]) for name in smooth)


def set_of(**attributes):
    return lambda server: [setattr(server, name, value) for name, value in attributes.items()]


AT_THE_START = [
    (set_of(version="0.21.2"), {}, {}, Unavailable, "vLLM 0.21.2 cannot be sent single blocks; it must be 0.22"),
    (set_of(version="dev"), {}, {}, Unavailable, "vLLM dev"),
    (set_of(development=False), {}, {}, Unavailable, "VLLM_SERVER_DEV_MODE=1"),
    (set_of(name="other"), {}, {}, Mismatch, "serves other and not tiny"),
    (set_of(mode="raw_logprobs"), {}, {"temperature": 0.5}, Mismatch, "--logprobs-mode processed_logprobs"),
    (set_of(key="secret"), {}, {}, Refused, "the key is not taken"),
    (set_of(change=lambda path, a: {**a, "tokens": [1, 2]} if path == "/tokenize" else a), {}, {}, Mismatch, "vocabulary is not the parent's"),
    (set_of(change=lambda path, a: b"<html>" if path == "/version" else a), {}, {}, Truncated, "none of vLLM's"),
    (set_of(), {}, {"context_tokens": 256}, Mismatch, "max_model_len is 128 and context_tokens 256"),
    (set_of(), {"base_url": "http://192.0.2.7:8000/v1"}, {}, ConfigError, "must be https, or http on this machine"),
    (set_of(), {"base_url": "http://127.0.0.1:8000"}, {}, ConfigError, "end in /v1"),
    (set_of(), {"base_url": "http://a:b@127.0.0.1/v1"}, {}, ConfigError, "must be https"),
    (set_of(), {"api_key_env": "NO_SUCH_KEY"}, {}, ConfigError, "NO_SUCH_KEY is not set"),
    (set_of(), {"base_url": "http://127.0.0.1:9/v1"}, {}, Unavailable, "no connection .*is the server running"),
]  # fmt: skip


@pytest.mark.parametrize("make, table, changes, error, words", AT_THE_START, ids=[row[-1] for row in AT_THE_START])  # fmt: skip
def test_an_unsuitable_server_is_refused_before_anything_is_sent(
    project, server, make, table, changes, error, words
):
    make(server)
    with pytest.raises(error, match=words):
        rl.train(config_of(project, server, table=table, **changes))
    assert not server.files and not (project / "shared").exists()


def test_without_a_temperature_raw_log_probabilities_are_the_processed_ones(project, server):
    server.mode = "raw_logprobs"
    assert rl_step.take_step(rl.start(config_of(project, server)))["sampling_gap"] < 1e-4


def test_with_a_temperature_the_server_is_held_to_it(project, server):
    run = rl.start(config_of(project, server, temperature=0.5))
    assert rl_step.take_step(run)["sampling_gap"] < 1e-4


def test_the_key_comes_from_the_environment_and_goes_with_every_request(
    project, server, monkeypatch
):
    server.key = "secret"
    monkeypatch.setenv("ROLLOUT_KEY", "secret")
    rl.train(config_of(project, server, table={"api_key_env": "ROLLOUT_KEY"}, steps=1))
    assert len(server.files) == 1
    assert "secret" not in (project / "rl.toml").read_text()
    assert "secret" not in (project / "out/branch.json").read_text()


def test_a_server_that_says_nothing_or_goes_away_is_named(project, server):
    run = rl.start(config_of(project, server, table={"timeout_s": 900.0}))
    assert run.server._client.timeout.read == 900.0

    def resume():  # it says so, and still answers nobody; only what follows is not waited for long
        run.server._client.timeout = 0.5
        return {"status": "resumed"}

    server.resume = resume
    with pytest.raises(Timeout, match="completions: no answer within 900 s"):
        rl_step.take_step(run)
    run.server._client.timeout = 900.0
    server.__exit__()
    with pytest.raises(Unavailable, match=r"step 1: .*no connection"):
        rl_step.take_step(run)
    assert run.step == 0


def test_half_a_block_nan_and_a_full_disk_are_named_before_the_server_is_touched(project, server):
    run = rl.start(config_of(project, server))
    rl_step.take_step(run)
    asked = len(server.requests)
    whole = run.trunk.branch_tensors(run.trunk.policy)
    half = {n: t for n, t in whole.items() if not n.endswith("query_key_value.bias")}
    with pytest.raises(Mismatch, match=r"query_key_value\.bias of the top 1 blocks is missing"):
        run.server.update(half, 2)
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"step 2: .*free some space"):
            run.server.update(run.trunk.branch_tensors(run.trunk.policy), 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    with torch.no_grad():
        run.trunk.policy.after["ln_f"].weight[0] = float("nan")
    with pytest.raises(NotFinite, match=r"step 2: transformer\.ln_f\.weight holds NaN"):
        rl_step.take_step(run)
    assert len(server.requests) == asked
    assert [p.name[:7] for p in (project / "shared/tiny").iterdir()] == ["step-1-"]


def test_a_failure_in_one_process_is_an_error_in_all(project, server):
    config = config_of(project, server)
    run = rl.start(config)
    made = type(run.server)
    others = made(
        config.rollout_server, project / "shared/tiny", {}, 1, 9, process=1, world=2,
        reduce=lambda number: number + 1.0,
    )  # fmt: skip
    with pytest.raises(Unavailable, match="failed another of the 2 processes"):
        others.update({}, 1)
    assert not server.files  # only the first process sends


@pytest.mark.slow
def test_two_processes_ask_for_their_own_prompts_and_one_updates(place):
    outcomes = []
    for processes in (1, 2):
        file = scale_out.rl_stage(place, steps=2, algorithm="rloo")
        shared = (place / "shared").relative_to(ROOT).as_posix()
        with VllmServer(place / "parent") as server:
            table = {"base_url": server.url, "model": "tiny", "weights": shared, "gap": 1e-4}
            lines = ["", "[rollout_server]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
            with file.open("a", encoding="utf-8") as text:
                text.write("\n".join(lines))
            scale_out.launch("ddp.yaml", "training.rl", file, processes=processes)
            assert len(server.files) == 2
            assert len(server.asked("/version")) == processes
            asked = [(body["seed"], body["prompt"]) for body in server.asked("/v1/completions")]
        rows = rows_of(place / "work/tiny/steps.csv")
        outcomes.append((sorted(asked), rows, branches.tensors_of(place / "out")))
    (questions, one, alone), (same, two, both) = outcomes
    assert questions == same and len(questions) == 8
    for name in ("reward", "kl", "length", "loss", "entropy", "gradient_norm"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], abs=1e-4)
    # A key's bias moves no attention: its gradient is rounding, of which Adam makes a step all the same.
    own = [name for name in alone if not name.endswith("query_key_value.bias")]
    assert max((alone[name] - both[name]).abs().max() for name in own) < 1e-5
