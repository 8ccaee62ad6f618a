"""one step of reinforcement learning: draw cases, answer, score, credit, update; everything random from seed and step."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor

from huatuo.errors import NotFinite
from huatuo.messages import Message
from huatuo.models.trunk import Trunk
from huatuo.prompts import encode
from training import objectives
from training.cases import EMERGENCY, OPENERS, Case
from training.ensemble import RewardEnsemble
from training.learner import Learner, Tokens, by_length, owners
from training.objectives import KlControl, LengthLeash
from training.rollout import Drawing, Rollouts, recomputed, sample
from training.rollout_server import RolloutServer, packed
from training.rubric import RubricJudge, urges
from training.zero import Engine

if TYPE_CHECKING:
    from training.rl import RlConfig


@dataclass
class Run:
    """What lives as long as a run."""

    config: "RlConfig"
    trunk: Trunk
    tokenizer: Any
    ensemble: RewardEnsemble
    learner: Learner
    value: Any
    cases: Sequence[Case]
    kl: KlControl
    length: LengthLeash
    accelerator: Accelerator
    inputs: dict[str, Any]
    """sha256 of the prompts' files and of the reward model, by name."""
    trunk_digest: str
    """Of the frozen tensors' bytes at the start; the end must find the same."""
    engine: Engine | None = None
    """Under DeepSpeed, what holds policy and value."""
    server: RolloutServer | None = None
    """What answers instead of our own generation."""
    step: int = 0
    within: dict[str, Tensor] | None = None
    """The policy as it was when its KL was last measured within the budget."""

    def whole(self, *, changed: bool = False) -> AbstractContextManager[None]:
        """While it lasts, no weight of policy and value lies in shards; every process enters it (Engine.whole)."""
        return nullcontext() if self.engine is None else self.engine.whole(changed=changed)


def take_step(run: Run) -> dict[str, float]:
    """One step; returns its figures by name. Raises NotFinite naming step and cases, FrozenMoved; RolloutServer's errors."""
    config, marks = run.config, [time.monotonic()]
    cases = draw(run)
    rollouts = generate(run, cases)
    marks.append(time.monotonic())
    with frozen_at_hand(run):
        scores, spread = reward(run, rollouts)
        old, reference, values = run.learner.score(rollouts)
    owner = owners(rollouts)
    kl = torch.zeros(len(rollouts), device=old.device).index_add_(0, owner, old - reference)
    marks.append(time.monotonic())
    texts = texts_of(run, rollouts)
    silent = unwarned(run, cases, texts)
    gap = old - rollouts.sampled[:, 1:][rollouts.answer[:, 1:]]
    figures = _figures(run, cases, texts, silent, rollouts, scores, spread, kl, gap)
    if run.server is not None:
        figures |= run.server.compared(gap, run.step + 1)
    shaped = guarded(run, rollouts, scores, silent)
    tokens = credit(run, rollouts, Tokens(owner, old, reference, old, values), shaped, kl)
    if not config.kl_budget or figures["kl"] <= config.kl_budget:
        place = "cpu" if config.offload else run.trunk.device
        with run.whole():
            run.within = {
                name: tensor.to(place, copy=True)
                for name, tensor in run.trunk.policy.state_dict().items()
            }
    set_rates(run)
    order = [
        random.Random(f"{config.seed}/{run.step}/{epoch}").sample(
            range(len(rollouts)), len(rollouts)
        )
        for epoch in range(config.epochs)
    ]
    try:
        figures |= run.learner.update(rollouts, tokens, order)
    except NotFinite as error:
        names = ", ".join(case.id[:40] for case in cases[:4])
        raise NotFinite(
            f"step {run.step + 1}: {error}; its cases begin with {names}; lower learning_rate; the state saved last "
            "is kept: go on from it with --resume"
        ) from None
    run.trunk.check_frozen()
    run.kl.move(figures["kl"])
    run.length.move(figures["length"])
    marks.append(time.monotonic())
    phases = ("generate_s", "score_s", "update_s")
    figures |= {
        name: end - begin for name, (begin, end) in zip(phases, pairwise(marks), strict=True)
    }
    run.step += 1
    return figures


@contextmanager
def frozen_at_hand(run: Run) -> Iterator[None]:
    """With `offload`, reference and reward branches are on the device only while this lasts."""
    waiting: list[Any] = [run.learner.reference, *run.ensemble.branches]
    if not run.config.offload:
        yield
        return
    for branch in waiting:
        branch.to(run.trunk.device)
    try:
        yield
    finally:
        for branch in waiting:
            branch.to("cpu")
        if run.trunk.device.type == "cuda":
            torch.cuda.empty_cache()


def draw(run: Run) -> list[Case]:
    """This process's share of the step's cases; an epoch's permutation by permutation."""
    config, many = run.config, run.config.prompts_per_step
    orders: dict[int, list[Case]] = {}
    chosen = []
    for place in range(run.step * many, (run.step + 1) * many):
        lap, at = divmod(place, len(run.cases))
        if lap not in orders:
            orders[lap] = random.Random(f"{config.seed}/lap/{lap}").sample(
                run.cases, len(run.cases)
            )
        chosen.append(orders[lap][at])
    return chosen[run.accelerator.process_index :: run.accelerator.num_processes]


def generate(run: Run, cases: Sequence[Case]) -> Rollouts:
    """`samples` answers to each case, drawn from the policy as it is."""
    config, tokenizer = run.config, run.tokenizer
    room = config.context_tokens - config.max_new_tokens
    prompts = [
        encode(tokenizer, (Message("user", case.question),), config.template, max_tokens=room).ids
        for case in cases
    ]
    how = Drawing(
        max_new_tokens=config.max_new_tokens,
        ends=frozenset([int(tokenizer.eos_token_id)]),
        pad=int(tokenizer.pad_token_id),
        temperature=config.temperature,
        rows=config.rollout_rows,
    )
    generator = torch.Generator(run.trunk.device)
    generator.manual_seed(hash((config.seed, run.step, run.accelerator.process_index)) % 2**63)
    with run.whole():
        if run.server is not None:
            run.server.update(run.trunk.branch_tensors(run.trunk.policy), run.step + 1)
            seed = f"{config.seed}/{run.step}"
            answers = run.server.answers(prompts, config.samples, how, seed)
            return packed(run.trunk, prompts, answers, how.pad, config.micro_batch)
        rollouts = sample(run.trunk, prompts, config.samples, how, generator)
        return rollouts if config.capture else recomputed(run.trunk, rollouts)


def reward(run: Run, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """(pessimistic whitened rewards clipped to +-reward_clip, standard deviation over the ensemble), both (B,)."""
    config = run.config
    members = torch.zeros(len(run.ensemble.members), len(rollouts), device=run.trunk.device)
    order = by_length(rollouts)
    for begin in range(0, len(order), config.micro_batch):
        rows = order[begin : begin + config.micro_batch]
        part = rollouts.select(rows)
        members[:, rows] = run.ensemble.scores(part.states, part.fed, part.spoken, part.ids[:, :-1])
    spread = members.std(0, correction=0)
    cautious = members.mean(0) - config.pessimism * spread
    if not bool(torch.isfinite(cautious).all()):
        raise NotFinite(
            f"step {run.step + 1}: the reward model gives NaN; the state saved last is kept"
        )
    return cautious.clamp(-config.reward_clip, config.reward_clip), spread


def unwarned(run: Run, cases: Sequence[Case], texts: Sequence[str]) -> Tensor:
    """(B,) bool: answers to an emergency that send nobody to help at once. texts: `samples` to each case, in turn."""
    asked = [case for case in cases for _ in range(run.config.samples)]
    found = [
        case.kind == EMERGENCY and not urges(text, case.language)
        for case, text in zip(asked, texts, strict=True)
    ]
    return torch.tensor(found, device=run.trunk.device)


def guarded(run: Run, rollouts: Rollouts, scores: Tensor, silent: Tensor) -> Tensor:
    """(B,) the rewards less the pull of the length leash and the fines: no end, no warning where one is due."""
    config = run.config
    fines = config.unfinished * (~rollouts.finished) + config.missed_warning * silent
    return scores - run.length.penalty(rollouts.lengths) - fines


def credit(run: Run, rollouts: Rollouts, tokens: Tokens, scores: Tensor, kl: Tensor) -> Tokens:
    """The tokens with their advantages (and returns, for PPO). scores, kl: (B,) rewards and KL per answer."""
    config, owner = run.config, tokens.owner
    if config.algorithm == "ppo":
        assert tokens.values is not None
        each = -run.kl.coefficient * (tokens.old - tokens.reference)
        last = rollouts.lengths.cumsum(0) - 1
        each[last] += scores
        advantages, tokens.returns = objectives.gae(
            each, tokens.values, owner, gamma=config.gamma, lam=config.lam
        )
        tokens.advantages = objectives.whitened(advantages)
    elif config.algorithm == "rloo":
        whole = scores - run.kl.coefficient * kl
        tokens.advantages = objectives.leave_one_out(whole, config.samples)[owner]
    else:
        tokens.advantages = objectives.group_normalised(scores, config.samples)[owner]
        tokens.kl_in_loss = run.kl.coefficient
    return tokens


def _figures(
    run: Run,
    cases: Sequence[Case],
    texts: Sequence[str],
    silent: Tensor,
    rollouts: Rollouts,
    scores: Tensor,
    spread: Tensor,
    kl: Tensor,
    gap: Tensor,
) -> dict[str, float]:
    judge = RubricJudge()
    grades = [
        judge.grade(case, text).score
        for case, text in zip(
            (c for c in cases for _ in range(run.config.samples)), texts, strict=True
        )
        if case.condition and case.kind in OPENERS
    ]
    urgent = sum(case.kind == EMERGENCY for case in cases) * run.config.samples
    local = {
        "reward": float(scores.mean()),
        "spread": float(spread.mean()),
        "kl": float(kl.mean()),
        "length": float(rollouts.lengths.float().mean()),
        "unfinished": float((~rollouts.finished).float().mean()),
        "repeated": sum(map(repetition, texts)) / len(texts),
        "sampling_gap": float(gap.abs().max()),
    }
    world = run.accelerator.num_processes
    return {
        **{name: summed(run.accelerator, value) / world for name, value in local.items()},
        "rubric": _share(run.accelerator, sum(grades), len(grades)),
        "unwarned": _share(run.accelerator, float(silent.sum()), urgent),
        "kl_coefficient": run.kl.coefficient,
        "length_pull": run.length.pull,
    }


def _share(accelerator: Accelerator, part: float, whole: float) -> float:
    """Part by whole over all processes, of which some may have neither; NaN where there is nothing."""
    part, whole = summed(accelerator, part), summed(accelerator, whole)
    return part / whole if whole else float("nan")


def texts_of(run: Run, rollouts: Rollouts) -> list[str]:
    """The answers as text."""
    return [
        run.tokenizer.decode(ids[answer], skip_special_tokens=True).strip()
        for ids, answer in zip(rollouts.ids, rollouts.answer, strict=True)
    ]


def repetition(text: str, n: int = 8) -> float:
    """The share of the text's runs of n characters that were there before."""
    runs = [text[i : i + n] for i in range(len(text) - n + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def set_rates(run: Run) -> None:
    """The learning rates of this step: up to the full ones in `warm_up` steps, then as `schedule` says."""
    config = run.config
    share = min(1.0, (run.step + 1) / max(config.warm_up, 1))
    if config.schedule == "linear" and run.step >= config.warm_up:
        share = (config.steps - run.step) / (config.steps - config.warm_up)
    rates = (config.learning_rate, config.value_learning_rate)
    for group, rate in zip(run.learner.optimizer.param_groups, rates, strict=False):
        group["lr"] = rate * share


def summed(accelerator: Accelerator, number: float) -> float:
    """The number's sum over the processes."""
    if accelerator.num_processes == 1:
        return number
    total: Any = accelerator.reduce(
        torch.tensor(number, device=accelerator.device, dtype=torch.float64), "sum"
    )
    return float(total)
