"""Training of image-text models: pairs as tensors on the device, no loader.

Training is repeatable from its seed on one machine; a result depends on the batch size
and on the order, as that of every training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from bezoar.data.pairs import PairData
from bezoar.errors import DivergedError, InputError
from bezoar.models.dual_encoder import MAX_LOG_SCALE, DualEncoder, distinct
from bezoar.models.weights import fingerprint
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float, Int64
from bezoar.train.augment import crop_and_flip
from bezoar.train.clip_losses import clip_loss
from bezoar.train.clip_settings import ClipTraining, decay_groups
from bezoar.train.ranks import Ranks, check_alone
from bezoar.train.vae_checkpoint import VAECheckpoint


@dataclass(frozen=True, kw_only=True, eq=False)
class PairBatch:
    """What an objective is shown in one step.

    Attributes:
        images: Images in [0, 1] on the device, augmented where that was asked for.
        ids: Ids of their captions on the device, no longer than the longest needs.
        rows: Places of the pairs in the data, on the CPU.
        stream: Where an objective may draw from.
    """

    images: Float[Tensor, "b 3 h w"]
    ids: Int64[Tensor, "b l"]
    rows: Int64[Tensor, " b"]
    stream: torch.Generator


_DEFAULT = ClipTraining()
PairObjective = Callable[[DualEncoder, PairBatch], Tensor]


def contrast(model: DualEncoder, batch: PairBatch) -> Float[Tensor, ""]:
    """Return the contrastive loss of a batch: the usual objective.

    Args:
        model: The model that is trained.
        batch: The pairs.

    Returns:
        The mean loss.
    """
    return clip_loss(
        model.encode_images(batch.images),
        model.encode_texts(batch.ids),
        log_scale=model.log_scale,
    )


def train_clip(
    model: DualEncoder,
    *,
    data: PairData,
    settings: ClipTraining = _DEFAULT,
    objective: PairObjective = contrast,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> DualEncoder:
    """Train a copy of an image-text model on pairs.

    Args:
        model: Fresh or trained; it is left as it was.
        data: The pairs, at the model's resolution for the best speed.
        settings: The protocol.
        objective: What is minimised.
        seed: Seeds the order and the augmentation.
        runtime: Where and how to run. With the usual objective, a killed training
            with ``work_dir`` goes on from its last epoch (``forget_training`` removes
            what is kept), and with ``distributed`` several processes share it.

    Returns:
        The trained copy in eval mode on the CPU.

    Raises:
        InputError: If there are fewer than two pairs.
        DivergedError: If the loss is not finite.
    """
    if objective is not contrast:
        check_alone(runtime, "image-text models with an objective of its own")
    ranks = Ranks.of(runtime)
    if len(data) < 2:
        raise InputError(
            f"expected at least 2 pairs to train on, got {len(data)}; give more"
        )
    network = copy.deepcopy(model).to(runtime.device).train()
    checkpoint = VAECheckpoint.at(
        runtime.work_dir if objective is contrast else None,
        stage="clip",
        settings={
            **asdict(settings),
            "seed": seed,
            "model": fingerprint(model),
            "captions": data.captions,
        },
        data=data,
    )
    if ranks.size > 1:
        objective = partial(_shared_contrast, ranks)
    training = _Training(network, data, settings, objective, runtime, ranks)
    history = checkpoint.load(network, training.optimizer)
    smallest = min(len(data), _rest(len(data), settings))
    ranks.check(checkpoint.key, batch_size=smallest, done=len(history))
    for epoch in range(len(history), settings.epochs):
        with ranks.synced(network):
            loss = training.epoch(epoch, generator(seed, "train-clip", epoch))
        if not math.isfinite(loss):
            raise DivergedError(
                f"expected a finite loss, got {loss} in epoch {epoch + 1}; lower lr "
                f"({settings.lr})"
            )
        history = (*history, {"loss": loss})
        if ranks.leads:
            checkpoint.save(network, training.optimizer, history=history)
        runtime.progress(
            Progress(
                stage="train",
                done=epoch + 1,
                total=settings.epochs,
                metrics={"loss": loss},
            )
        )
    for parameter, needed in zip(network.parameters(), model.parameters(), strict=True):
        parameter.requires_grad_(needed.requires_grad)
        parameter.grad = None
    return network.eval().cpu()


def _shared_contrast(ranks: Ranks, model: DualEncoder, batch: PairBatch) -> Tensor:
    """Return the loss of all pairs, in all processes; each encodes its share."""
    size = len(batch.images)
    seen = model.encode_images(ranks.share(batch.images))
    told = model.encode_texts(ranks.share(batch.ids))
    return clip_loss(
        ranks.whole(seen, size), ranks.whole(told, size), log_scale=model.log_scale
    )


def _rest(total: int, settings: ClipTraining) -> int:
    """Return the pairs of an epoch's last batch."""
    rest = total % settings.batch_size
    return rest if 2 * rest >= settings.batch_size else settings.batch_size


class _Training:
    def __init__(
        self,
        network: DualEncoder,
        data: PairData,
        settings: ClipTraining,
        objective: PairObjective,
        runtime: Runtime,
        ranks: Ranks,
    ) -> None:
        self.network, self.settings, self.objective = network, settings, objective
        self.ranks = ranks
        self.dtype = runtime.compute_dtype()
        self.images = data.images.to(runtime.device)
        texts, self.text_of = distinct(data.captions)
        self.ids = network.tokenize(texts)
        self.lengths = _lengths(self.ids)
        trained = (
            network.image_parameters()
            if settings.trainable == "image"
            else list(network.parameters())
        )
        network.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        groups = decay_groups(trained, weight_decay=settings.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr)

    def epoch(self, epoch: int, stream: torch.Generator) -> float:
        size = self.settings.batch_size
        order = torch.randperm(len(self.images), generator=stream)
        batches = list(order.split(size))
        if len(batches) > 1 and len(batches[-1]) < size / 2:
            batches.pop()  # the loss of a handful of pairs is another loss
        first = epoch * len(batches)
        losses = [
            self.step(rows, stream, step=first + i, steps_per_epoch=len(batches))
            for i, rows in enumerate(batches)
        ]
        return torch.stack(losses).mean().item()

    def step(
        self, rows: Tensor, stream: torch.Generator, *, step: int, steps_per_epoch: int
    ) -> Tensor:
        device = self.images.device
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(step, steps_per_epoch=steps_per_epoch)
        images = self.images[rows.to(device)]
        if self.settings.augment == "crop_flip":
            images = crop_and_flip(images, stream, pad=max(1, images.shape[2] // 8))
        texts = self.text_of[rows]
        longest = int(self.lengths[texts].max())
        batch = PairBatch(
            images=images.float() / 255,
            ids=self.ids[texts, :longest].to(device),
            rows=rows,
            stream=stream,
        )
        half = self.dtype != torch.float32
        with torch.autocast(device.type, self.dtype, enabled=half):
            value = self.objective(self.network, batch)
        self.optimizer.zero_grad()
        self.ranks.backward(value, self.network, weight=1 / self.ranks.size)
        self.optimizer.step()
        with torch.no_grad():
            self.network.log_scale.clamp_(0, MAX_LOG_SCALE)
        return value.detach()


def _lengths(ids: Int64[Tensor, "n l"]) -> Int64[Tensor, " n"]:
    # The end has the highest id of a row, and only padding follows it.
    return ids.argmax(1) + 1
