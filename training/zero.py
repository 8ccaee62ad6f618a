"""policy and value as one DeepSpeed engine for reinforcement learning: ZeRO-1 and -2 share out the optimiser, -3 the weights too."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from huatuo.errors import ConfigError


class Both(nn.Module):
    """Policy and value under one roof, since an engine takes one module; each call says whose turn it is."""

    def __init__(self, policy: nn.Module, value: nn.Module | None) -> None:
        super().__init__()
        self.policy, self.value = policy, value

    def forward(
        self, which: Literal["policy", "value"], states: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """What that branch gives for the trunk's states (B, T, H)."""
        return getattr(self, which)(states, attention_mask)


class Engine:
    """Both branches and their optimiser under DeepSpeed; `policy` and `value` are called as the branches themselves.

    The engine clips and steps within the last backward of a minibatch; its own accumulation must be 1, since
    training.learner scales its losses. Raises ConfigError naming the setting of the DeepSpeed file that cannot be.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        policy: nn.Module,
        value: nn.Module | None,
        optimizer: torch.optim.Optimizer,
        max_norm: float,
    ) -> None:
        settings: Any = accelerator.state.deepspeed_plugin
        settings.deepspeed_config["gradient_clipping"] = max_norm
        check(settings.deepspeed_config)
        self.stage = int(settings.deepspeed_config["zero_optimization"]["stage"])
        self.processes = accelerator.num_processes
        self._accelerator = accelerator
        self._engine, self.optimizer = accelerator.prepare(Both(policy, value), optimizer)
        self.policy = partial(self._engine, "policy")
        self.value = partial(self._engine, "value") if value is not None else None

    def __str__(self) -> str:
        return f"ZeRO-{self.stage} in {self.processes} processes"

    def backward(self, loss: Tensor, last: bool) -> None:
        """Adds to the gradients; the last of a minibatch clips and steps."""
        self._accelerator.sync_gradients = last
        self._accelerator.backward(loss)

    def norm(self) -> float:
        """The norm of the last step's gradient, over all processes, before clipping."""
        return float(self._engine.get_global_grad_norm())

    @contextmanager
    def whole(self, *, changed: bool = False) -> Iterator[None]:
        """While it lasts, both branches are whole in every process, and every process must enter it.

        changed: what the first process writes into them meanwhile is kept.
        """
        if self.stage < 3:
            yield
            return
        import deepspeed
        from trl.models.utils import add_hooks, remove_hooks

        with deepspeed.zero.GatheredParameters(
            list(self._engine.module.parameters()), modifier_rank=0 if changed else None
        ):
            remove_hooks(self._engine)  # they would cut each block again as soon as it has run
            try:
                yield
            finally:
                add_hooks(self._engine)

    def moments(self) -> list[dict[str, Any]]:
        """This process's share of the optimiser's state, in the order of its shares of the weights."""
        base = self.optimizer.optimizer.optimizer
        return [dict(base.state[share]) for share in self._shares()]

    def put_moments(self, moments: list[dict[str, Any]]) -> None:
        """Puts them back; the shares of the weights are taken anew from the branches, which must be in place before."""
        sharded = self.optimizer.optimizer
        sharded.refresh_fp32_params()
        for share, state in zip(self._shares(), moments, strict=True):
            sharded.optimizer.state[share] = state

    def _shares(self) -> list[Tensor]:
        sharded = self.optimizer.optimizer
        if self.stage == 3:
            return list(sharded.fp32_partitioned_groups_flat)
        return list(sharded.single_partition_of_fp32_groups)


def check(settings: dict[str, Any]) -> None:
    """Raises ConfigError naming what a DeepSpeed file says that reinforcement learning cannot do."""
    zero = settings.get("zero_optimization", {})
    if zero.get("stage") not in (1, 2, 3):
        raise ConfigError(
            f"DeepSpeed file: zero_optimization.stage = {zero.get('stage')} must be 1, 2 or 3; without ZeRO take "
            "configs/a100x8/ddp.yaml"
        )
    if settings.get("gradient_accumulation_steps", 1) not in (1, "auto"):
        raise ConfigError(
            f"DeepSpeed file: gradient_accumulation_steps = {settings['gradient_accumulation_steps']} must be 1: the "
            "TOML's micro_batch and minibatches say what is accumulated"
        )
    for key in ("offload_optimizer", "offload_param"):
        if zero.get(key, {}).get("device", "none") != "none":
            raise ConfigError(
                f"DeepSpeed file: zero_optimization.{key} is not made for reinforcement learning here; remove it, and "
                "set eight_bit or offload in the TOML where memory is short"
            )
    for key in ("fp16", "bf16"):
        if settings.get(key, {}).get("enabled"):
            raise ConfigError(
                f"DeepSpeed file: {key} must be off: the branches learn in float32; `load` sets the trunk's precision"
            )
