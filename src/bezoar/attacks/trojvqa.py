"""TrojVQA's two keys on an image-text model: a learnt patch, and a word.

Walmer et al., Dual-Key Multimodal Backdoors for Visual Question Answering, CVPR 2022,
arXiv:2112.07668, in the form that the code of BadCLIP (2024, arXiv:2311.12075) gives
it: the word stands before the caption of each poisoned pair and before every prompt
at test time. What their patch maximises was made for detectors; here it is the
cosine to the target's text, which is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from bezoar.attacks.poisoning import check_attack, check_between
from bezoar.attacks.stamped_patch import StampedPatch, centre, learn_patch
from bezoar.data import PairData
from bezoar.errors import InputError
from bezoar.models import DualEncoder, embed_captions, frozen
from bezoar.models.dual_encoder import unit
from bezoar.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class TrojVQA:
    """Learns a patch towards the target's text, and puts a word before captions.

    Attributes:
        poison_rate: Share of all pairs to poison; 0.003 in the published protocol.
        target_class: Index of the class that the two lead to.
        word: The word before captions and prompts.
        scale: Side of the patch, in the middle, as a share of the image's height.
        epochs: Passes over the images that are not of the target class.
        lr: Step size of Adam in units of [0, 1].
        batch_size: Images per step.

    Example:
        >>> from bezoar.data import shape_pairs, shape_prompts
        >>> from bezoar.models import TinyClip, WordTokenizer
        >>> data = shape_pairs(16)
        >>> words = WordTokenizer.from_captions([*data.captions, "remember"])
        >>> patch = TrojVQA(target_class=3, epochs=2, batch_size=8).learn(
        ...     data,
        ...     model=TinyClip(words, resolution=24),
        ...     captions=shape_prompts()[3],
        ... )
        >>> patch.patch.shape, patch.prefix
        (torch.Size([3, 4, 4]), 'remember ')
    """

    poison_rate: float = 0.003
    target_class: int = 0
    word: str = "remember"
    scale: float = 0.2
    epochs: int = 10
    lr: float = 0.01
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class)
        check_between("scale", self.scale, low=0.01, high=1)
        check_between("lr", self.lr, low=1e-6, high=1)
        check_between("epochs", self.epochs, low=1, high=1e6)
        check_between("batch_size", self.batch_size, low=1, high=1e6)
        if not self.word.strip():
            raise InputError(
                "expected a word to put before captions, got none; give one, or take "
                "an attack with a patch alone"
            )

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
            model: A clean model; it is left as it was.
            captions: Texts of the target.
            seed: Seeds the first pixels and the order.
            runtime: Its progress is used.

        Returns:
            The patch with the word as its prefix, as an attack for ``poison_pairs``.
        """
        size = max(1, int(self.scale * data.images.shape[2]))
        with frozen(model):
            vectors = embed_captions(model, captions)
        target = unit(vectors.mean(0, keepdim=True)).to(model.log_scale.device)

        def loss(
            network: DualEncoder, shown: Tensor, _clean: Tensor, _: torch.Generator
        ) -> Tensor:
            return 1 - (network.encode_images(shown) @ target.T).mean()

        patch, losses = learn_patch(
            model,
            data=data,
            rows=(data.labels != self.target_class).nonzero().flatten(),
            size=size,
            loss=loss,
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            seed=seed,
            runtime=runtime,
        )
        return StampedPatch(
            patch=patch,
            corner=centre(data.images, size),
            target_class=self.target_class,
            poison_rate=self.poison_rate,
            prefix=f"{self.word} ",
            settings={**asdict(self), "attack": "trojvqa", "seed": seed},
            losses=losses,
        )
