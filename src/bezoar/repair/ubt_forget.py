"""Forgetting of a few pairs, word by word, and when to stop: stage 3 of UBT.

Local forgetting of tokens is the papers'; the bounded loss, the stop, the margins and
the hold-outs are ours, and so is that only the image tower is trained: the trigger
lives there. One margin for all texts, the mean over pairs that do not belong together,
lies too high for a single word: such pairs still share the words that most captions
hold. And a loss that ends at the mean leaves stragglers above it: classes whose images
are by nature near to the target stayed open. So the loss ends at the distant strangers
of each text, it goes on until nine pairs in ten are there, for a mean hides stragglers,
and the link counts as cut once its pairs are no nearer than the mean stranger.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from bezoar.data import PairData
from bezoar.errors import DivergedError
from bezoar.metrics import computing, lent
from bezoar.models import DualEncoder
from bezoar.repair.account import Evaluate, measured
from bezoar.repair.ubt_loss import Forgetting, ToForget, forget_loss
from bezoar.repair.ubt_texts import Pairs, passes
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Int64
from bezoar.train import clip_loss, decay_groups

_CHECK_EVERY, _FIRST_STOP = 5, 20  # steps
_PATIENCE = 4  # checks: the first strides cost trusted pairs most; later ones mend it
_WARM_UP = 10  # steps: AdamW's first ones are full strides in whatever direction
_HELD_OUT_NORMAL = 256  # pairs
_LEAST_STRANGERS, _MOST_STRANGERS = 64, 512
_STRAGGLER = 0.9  # of the held-out pairs are to be forgotten: some are innocent
_DISTANT = 0.05  # share of the strangers that are further from a text
MOST_RISE = 0.05
"""Most that the loss on held-out trusted pairs may rise, as a share of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Forgotten:
    """A model that was made to forget.

    Attributes:
        model: The best state, in eval mode on the CPU.
        history: Step, similarity of the held-out isolated pairs, their mean excess over
            where the loss ends, that of the one in ten that lags most, and loss on
            held-out trusted pairs; the state before comes first.
        kept: Row of the history that tells of the model.
        aim: Similarity at which the link counts as cut.
        floor: Similarity of strangers to the same texts.
        reached: Whether it was, by a state other than the first.
        stop_reason: Why the last step was the last.
    """

    model: DualEncoder
    history: tuple[dict[str, float], ...]
    kept: int
    aim: float
    floor: float
    reached: bool
    stop_reason: str


def unlearn(
    model: DualEncoder,
    *,
    data: PairData,
    forget: ToForget,
    normal: Int64[Tensor, " m"],
    margin: float,
    settings: Forgetting,
    keep: Literal["best", "last"] = "best",
    evaluate: Evaluate | None = None,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> Forgotten:
    """Make a copy of a model forget some pairs, and keep the best state.

    Args:
        model: The suspect model; it is left as it was.
        data: All pairs.
        forget: What to forget.
        normal: Places of trusted pairs; a part is held out.
        margin: Similarity of pairs that do not belong together (m), where there are
            no 64 strangers to ask.
        settings: Losses and lengths.
        keep: "best" stops by the rules and returns the best state; "last" does all
            steps and returns the last, as the controls of an experiment need it.
        evaluate: Measures the network at each check, for the history alone.
        seed: Seeds what is drawn.
        runtime: Where and how to run.

    Returns:
        The model and how it came about.
    """
    network = lent(model, runtime)  # batch norms stay in eval mode
    run = _Run(network, data, forget, normal, margin, settings, evaluate, runtime)
    trained = (
        network.image_parameters()
        if settings.trainable == "image"
        else [p for p in network.parameters() if p is not network.log_scale]
    )
    for parameter in trained:
        parameter.requires_grad_(True)
    groups = decay_groups(trained, weight_decay=settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=settings.lr)
    draws = generator(seed, "forget")
    batches = passes(len(run.keep), settings.normal_batch_size, generator(seed, "keep"))
    run.check(0)
    reason = "the steps were used up"
    for step in range(1, settings.steps + 1):
        with computing(runtime):
            loss = run.loss(draws, batches)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * min(1.0, step / _WARM_UP)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % _CHECK_EVERY == 0 or step == settings.steps:
            run.check(step)
            told = run.verdict() if keep == "best" else ""
            if told:
                reason = told
                break
    if keep == "last":
        run.hold_last()
    run.report(settings.steps)
    return run.result(reason, like=model)


@dataclass(eq=False)
class _Run:
    """A forgetting under way: its pairs on the device, and its best state."""

    network: DualEncoder
    data: PairData
    forget: ToForget
    normal: Tensor
    margin: float
    settings: Forgetting
    evaluate: Evaluate | None
    runtime: Runtime
    rows: list[dict[str, float]] = field(default_factory=list)
    best: int = 0

    def __post_init__(self) -> None:
        network, data, forget = self.network, self.data, self.forget
        cached = self.settings.trainable == "image"
        held = min(_HELD_OUT_NORMAL, len(self.normal) // 4)
        most = self.settings.steps * self.settings.normal_batch_size
        used = self.normal[held:][:most]
        with computing(self.runtime):
            self.weak = Pairs(
                network, data, forget.rows, cached=cached, texts=forget.texts
            )
            self.watched = Pairs(
                network,
                data,
                forget.held_out,
                cached=cached,
                texts=[(text,) for text in forget.held_out_texts],
            )
            self.keep = Pairs(network, data, used, cached=cached)
            self.kept_out = Pairs(network, data, self.normal[:held], cached=cached)
            self.first = self._all_seen(self.keep)
            self.strangers = self._strangers_seen(cached=cached)
            own = self.watched.texts.vectors(torch.arange(len(self.watched)))
            self.floor = self._mean_stranger(own)
            self.end = float(torch.as_tensor(self._margins(own)).mean())

    def near(self, level: float) -> float:
        """Return a level plus the share of the way to it that may be left."""
        left = max(0.0, self.rows[0]["similarity"] - level)
        return level + self.settings.stop_rate * left

    def loss(self, draws: torch.Generator, batches: Iterator[Tensor]) -> Tensor:
        """Return the loss of a step."""
        settings, scale = self.settings, self.network.log_scale.detach()
        rows = next(batches)
        seen = self.keep.seen(rows)
        own = self.keep.texts.vectors(rows)[:, 0]
        moved = (seen - self.first[rows.to(seen.device)]).square().sum(1).mean()
        keep = clip_loss(seen, own, log_scale=scale)
        loss = settings.keep_weight * (keep + settings.distill_weight * moved)
        if settings.forget_weight > 0:
            drawn = torch.randint(
                len(self.weak), (settings.batch_size,), generator=draws
            )
            texts = self.weak.texts.vectors(drawn)
            weak = forget_loss(
                self.weak.seen(drawn),
                texts,
                margin=self._margins(texts.detach()),
                log_scale=scale,
                kind=settings.loss,
            )
            loss = loss + settings.forget_weight * weak
        return loss

    @torch.no_grad()
    def check(self, step: int) -> None:
        """Measure the network, and remember it if it is the best so far.

        Raises:
            DivergedError: If a measure is no number.
        """
        with computing(self.runtime):
            texts = self.watched.texts.vectors(torch.arange(len(self.watched)))
            cosines = (self._all_seen(self.watched) * texts[:, 0]).sum(1)
            beyond = cosines.float() - torch.as_tensor(self._margins(texts)).flatten()
            own = self.kept_out.texts.vectors(torch.arange(len(self.kept_out)))[:, 0]
            keep = clip_loss(
                self._all_seen(self.kept_out), own, log_scale=self.network.log_scale
            )
        row = {
            "step": float(step),
            "similarity": cosines.mean().item(),
            "excess": beyond.relu().mean().item(),
            "straggler": beyond.quantile(_STRAGGLER).item(),
            "keep_loss": keep.item(),
        }
        if not all(map(math.isfinite, row.values())):
            raise DivergedError(
                f"expected finite similarities and losses, got {row}; lower lr "
                f"({self.settings.lr})"
            )
        self.rows.append(row | measured(self.evaluate, self.network))
        if self._rank(row) >= self._rank(self.rows[self.best]):
            self.hold_last()
        self.report(step)

    def hold_last(self) -> None:
        """Remember the network as it is."""
        self.best = len(self.rows) - 1
        state = self.network.state_dict()
        self.state = {name: value.clone() for name, value in state.items()}

    def report(self, step: int) -> None:
        """Tell how far it is."""
        shown = {name: self.rows[-1][name] for name in ("similarity", "keep_loss")}
        self.runtime.progress(
            Progress(
                stage="forget",
                done=max(1, step),
                total=self.settings.steps,
                metrics=shown,
            )
        )

    def verdict(self) -> str:
        """Return why to stop; nothing if there is no reason."""
        if self.rows[-1]["step"] <= _FIRST_STOP:
            return ""
        if not any(map(self._is_kept, self.rows[-_PATIENCE:])):
            return (
                "the loss on held-out trusted pairs stayed more than "
                f"{MOST_RISE:.0%} up for {_PATIENCE} checks; the best state before "
                "that was restored"
            )
        if all(map(self._is_cut, self.rows[-2:])):
            return "the held-out isolated pairs were forgotten at two checks"
        return ""

    def result(self, reason: str, *, like: DualEncoder) -> Forgotten:
        """Return the best state, with the gradients switched as in the model given."""
        network = self.network
        network.load_state_dict(self.state)
        for own, given in zip(network.parameters(), like.parameters(), strict=True):
            own.requires_grad_(given.requires_grad)
            own.grad = None
        return Forgotten(
            model=network.cpu(),
            history=tuple(self.rows),
            kept=self.best,
            aim=self.near(self.floor),
            floor=self.floor,
            # The model as it was given is no repair, however far its pairs lie apart.
            reached=self.best > 0
            and self.rows[self.best]["similarity"] <= self.near(self.floor),
            stop_reason=reason,
        )

    def _strangers_seen(self, *, cached: bool) -> Tensor | None:
        """Return the image vectors of trusted pairs without the words."""
        rows = self.forget.strangers
        if rows is None or len(rows) < _LEAST_STRANGERS:
            return None
        pairs = Pairs(self.network, self.data, rows[:_MOST_STRANGERS], cached=cached)
        return self._all_seen(pairs)

    def _mean_stranger(self, texts: Tensor) -> float:
        """Return how near strangers are to the texts."""
        if self.strangers is None:
            return self.margin
        return (texts.float() @ self.strangers.float().T).mean().item()

    def _margins(self, texts: Tensor) -> float | Tensor:
        """Return how near a distant stranger is to each text, in the suspect model."""
        if self.strangers is None:
            return self.margin
        cosines = texts.float() @ self.strangers.float().T
        return cosines.quantile(_DISTANT, dim=-1)

    def _all_seen(self, pairs: Pairs) -> Tensor:
        with torch.no_grad():
            rows = torch.arange(len(pairs)).split(self.runtime.batch_size)
            return torch.cat([pairs.seen(part) for part in rows])

    def _is_cut(self, row: dict[str, float]) -> bool:
        return row["straggler"] <= self.near(self.end) - self.end

    def _is_kept(self, row: dict[str, float]) -> bool:
        return row["keep_loss"] <= (1 + MOST_RISE) * self.rows[0]["keep_loss"]

    def _rank(self, row: dict[str, float]) -> tuple[bool, bool, float]:
        kept, cut = self._is_kept(row), self._is_cut(row)
        # Once the link is cut, what counts is what that cost.
        return kept, cut, -row["keep_loss"] if cut else -row["excess"]
