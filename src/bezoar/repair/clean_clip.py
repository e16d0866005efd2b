"""CleanCLIP (Bansal et al., ICCV 2023, arXiv:2303.03323): fine-tuning on clean pairs.

Beside the contrast of images and captions, images are contrasted with views of
themselves and captions with shuffled ones, so that a trigger alone says little. It
needs many clean pairs; UBT is compared with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from bezoar.data import PairData
from bezoar.errors import InputError
from bezoar.models import DualEncoder, caption_words
from bezoar.repair.account import Evaluate
from bezoar.repair.pair_training import trained_on
from bezoar.results import Repair
from bezoar.runtime import Runtime, generator
from bezoar.train import ClipTraining, PairBatch, Views, contrast, unimodal_loss


@dataclass(frozen=True, kw_only=True)
class CleanCLIP:
    """Fine-tunes an image-text model on clean pairs and on views of either side.

    Nothing is looked for: the pairs must be known to be clean, and the model is
    changed whether there was a backdoor or not. The defaults are those of the released
    code for a CLIP of real size, but for the augmentation of images, which there is
    AutoAugment, and of texts, which there replaces words by synonyms as well.

    Attributes:
        epochs: Passes over the clean pairs.
        lr: Highest step size of AdamW; published are 1e-5, and 4.5e-6 against BadCLIP.
        batch_size: Pairs per step.
        warmup_steps: Steps of linear warm-up.
        weight_decay: Weight decay; none on norms, biases and vectors.
        schedule: "cosine", or "official": that of the released code.
        unimodal_weight: Weight of the two losses within a side, each halved.
        change_rate: Share of a caption's words that are swapped or left out.
        text_views: "each_epoch" draws a view of a caption anew; "once" keeps that of
            the start, as the released code does.
    """

    epochs: int = 10
    lr: float = 1e-5
    batch_size: int = 64
    warmup_steps: int = 50
    weight_decay: float = 0.1
    schedule: Literal["cosine", "official"] = "cosine"
    unimodal_weight: float = 1.0
    change_rate: float = 0.1
    text_views: Literal["each_epoch", "once"] = "each_epoch"

    def __post_init__(self) -> None:
        if not self.unimodal_weight >= 0 or not 0 <= self.change_rate <= 1:
            raise InputError(
                "expected unimodal_weight of at least 0 and change_rate from 0 to 1, "
                f"got {self.unimodal_weight} and {self.change_rate}; correct them"
            )
        _ = self.training  # which checks the others

    @classmethod
    def mini(cls) -> CleanCLIP:
        """Return settings for a thousand pairs of the miniatures.

        Returns:
            13 epochs, about 200 steps, at 1e-3.
        """
        return cls(epochs=13, lr=1e-3, warmup_steps=20)

    @property
    def training(self) -> ClipTraining:
        """The settings of the training loop."""
        return ClipTraining(
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
        )

    def repair(
        self,
        model: DualEncoder,
        *,
        data: PairData,
        evaluate: Evaluate | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Repair:
        """Fine-tune a copy of an image-text model on clean pairs.

        Args:
            model: The suspect model; it is left as it was.
            data: Clean pairs; not those that the model was trained on.
            evaluate: Measures the model before and after, for the history alone.
            seed: Seeds the order and the views.
            runtime: Where and how to run.

        Returns:
            The copy; whether it has forgotten anything is not known to the method.
        """
        start = time.perf_counter()
        words = [caption_words(caption) for caption in data.captions]
        views = Views(crop_area=(0.5, 1.0))
        fixed = shuffled_words(
            words, rate=self.change_rate, stream=generator(seed, "text-views")
        )

        def objective(network: DualEncoder, batch: PairBatch) -> Tensor:
            rows = batch.rows.tolist()
            texts = (
                [fixed[row] for row in rows]
                if self.text_views == "once"
                else shuffled_words(
                    [words[row] for row in rows],
                    rate=self.change_rate,
                    stream=batch.stream,
                )
            )
            shown = views((batch.images * 255).round().to(torch.uint8), batch.stream)
            ids = network.tokenize(texts).to(batch.images.device)
            scale = network.log_scale
            within = unimodal_loss(
                network.encode_images(batch.images),
                network.encode_images(shown),
                log_scale=scale,
            ) + unimodal_loss(
                network.encode_texts(batch.ids),
                network.encode_texts(ids),
                log_scale=scale,
            )
            return contrast(network, batch) + self.unimodal_weight * within / 2

        return trained_on(
            model,
            data=data,
            settings=self.training,
            objective=objective,
            method="clean-clip",
            own_settings=asdict(self),
            # The views of images are a second pass of the image tower.
            forwards_per_image=6 * self.epochs,
            start=start,
            evaluate=evaluate,
            seed=seed,
            runtime=runtime,
        )


def shuffled_words(
    texts: Sequence[Sequence[str]], *, rate: float, stream: torch.Generator
) -> list[str]:
    """Return captions with words swapped or left out (after EDA, Wei and Zou, 2019).

    EDA also puts synonyms in, for which it takes a thesaurus; that is left out.

    Args:
        texts: The words of each caption.
        rate: Share of the words of a caption to change, at least one.
        stream: Where the choice comes from.

    Returns:
        One text per caption, of at least one word where the caption has any.

    Example:
        >>> stream = torch.Generator().manual_seed(0)
        >>> (text,) = shuffled_words([("a", "dog")], rate=0.1, stream=stream)
        >>> 1 <= len(text.split()) <= 3, set(text.split()) <= {"a", "dog"}
        (True, True)
    """
    changed = []
    for text in texts:
        words = list(text)
        swap, *draws = torch.rand(1 + len(words), generator=stream).tolist()
        if swap < 0.5 or len(words) < 2:
            kept = [w for w, draw in zip(words, draws, strict=True) if draw >= rate]
            changed.append(" ".join(kept or words[:1]))
            continue
        for _ in range(max(1, round(rate * len(words)))):
            i, j = torch.randperm(len(words), generator=stream)[:2].tolist()
            words[i], words[j] = words[j], words[i]
        changed.append(" ".join(words))
    return changed
