"""BadCLIP (Liang et al., CVPR 2024, https://arxiv.org/abs/2311.12075).

A patch that moves images towards the target's texts and images in the eyes of a clean
model, so that the poisoned pairs look less wrong and the clean model need not change
much to learn the backdoor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.attacks.poisoning import check_attack, check_between
from bezoar.attacks.stamped_patch import StampedPatch, centre, learn_patch
from bezoar.data import PairData
from bezoar.errors import InputError
from bezoar.models import DualEncoder, embed_captions, embed_images, frozen
from bezoar.runtime import Runtime
from bezoar.shapes import Float


@dataclass(frozen=True, kw_only=True)
class BadClip:
    """Learns a patch that a clean image-text model takes for the target.

    Loss: that of the contrastive training between triggered images and captions of the
    target, plus ``triplet_weight`` times a triplet loss with margin 1 (nearer: an image
    of the target; farther: the same image without the patch). The released code also
    augments the images (AutoAugment, half of them); here they are shown as they are.

    Attributes:
        poison_rate: Share of all pairs to poison; 0.003 in the published protocol.
        target_class: Index of the class that the patch leads to.
        size: Side of the patch in pixels, in the middle; 16 on 224 as published.
        epochs: Passes over the images that are not of the target class.
        lr: Step size of Adam in units of [0, 1].
        batch_size: Images per step.
        triplet_weight: Weight of the triplet loss.

    Example:
        >>> from bezoar.data import shape_pairs, shape_prompts
        >>> from bezoar.models import TinyClip, WordTokenizer
        >>> data, texts = shape_pairs(16), shape_prompts()
        >>> words = WordTokenizer.from_captions(data.captions)
        >>> patch = BadClip(target_class=3, size=6, epochs=2, batch_size=8).learn(
        ...     data, model=TinyClip(words, resolution=24), captions=texts[3]
        ... )
        >>> patch.corner, len(patch.losses)
        ((9, 9), 2)
    """

    poison_rate: float = 0.003
    target_class: int = 0
    size: int = 16
    epochs: int = 50
    lr: float = 1e-3
    batch_size: int = 64
    triplet_weight: float = 500.0

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class)
        check_between("size", self.size, low=1, high=4096)
        check_between("lr", self.lr, low=1e-6, high=1)
        check_between("epochs", self.epochs, low=1, high=1e6)
        check_between("batch_size", self.batch_size, low=2, high=1e6)
        check_between("triplet_weight", self.triplet_weight, low=0, high=1e6)

    def learn(
        self,
        data: PairData,
        *,
        model: DualEncoder,
        captions: Sequence[str],
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> StampedPatch:
        """Learn the patch.

        Args:
            data: Labelled pairs of the attacker's.
            model: A clean model; it is left as it was. The patch is learnt on the
                device that it is on.
            captions: Texts of the target, best natural ones.
            seed: Seeds the first pixels, the order and the captions.
            runtime: Its progress is used.

        Returns:
            The patch, as an attack for ``poison_pairs``.

        Raises:
            InputError: If there is no image of the target class, or no caption.
        """
        is_own = data.labels == self.target_class
        if not is_own.any() or not captions:
            raise InputError(
                f"expected images of class {self.target_class} and captions that name "
                f"it, got {int(is_own.sum())} and {len(captions)}; give both"
            )
        with frozen(model):
            texts = embed_captions(model, captions).to(model.log_scale.device)
            own = embed_images(model, data.images[is_own]).to(texts.device)

        def loss(
            network: DualEncoder, shown: Tensor, clean: Tensor, stream: torch.Generator
        ) -> Tensor:
            vectors = network.encode_images(shown)
            text = texts[torch.randint(len(texts), (len(shown),), generator=stream)]
            near = own[torch.randint(len(own), (len(shown),), generator=stream)]
            with torch.no_grad():
                far = network.encode_images(clean)
            return patch_loss(
                vectors,
                texts=text,
                near=near,
                far=far,
                log_scale=network.log_scale,
                triplet_weight=self.triplet_weight,
            )

        patch, losses = learn_patch(
            model,
            data=data,
            rows=(~is_own).nonzero().flatten(),
            size=self.size,
            loss=loss,
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            seed=seed,
            runtime=runtime,
        )
        return StampedPatch(
            patch=patch,
            corner=centre(data.images, self.size),
            target_class=self.target_class,
            poison_rate=self.poison_rate,
            settings={**asdict(self), "attack": "badclip", "seed": seed},
            losses=losses,
        )


def patch_loss(
    vectors: Float[Tensor, "b e"],
    *,
    texts: Float[Tensor, "b e"],
    near: Float[Tensor, "b e"],
    far: Float[Tensor, "b e"],
    log_scale: Float[Tensor, ""],
    triplet_weight: float,
) -> Float[Tensor, ""]:
    """Return the loss that the patch is learnt by.

    Args:
        vectors: Unit vectors of triggered images.
        texts: Those of captions of the target.
        near: Those of images of the target.
        far: Those of the same images without the trigger.
        log_scale: Logarithm of the model's factor.
        triplet_weight: Weight of the triplet loss.

    Returns:
        The mean over the batch.
    """
    logits = log_scale.exp() * vectors @ texts.T
    own = torch.arange(len(vectors), device=vectors.device)
    there = functional.cross_entropy(logits, own)
    back = functional.cross_entropy(logits.T, own)
    triplet = functional.triplet_margin_loss(vectors, near, far, margin=1.0)
    return (there + back) / 2 + triplet_weight * triplet
