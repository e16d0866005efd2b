"""Many linear layers at once learn what each would learn alone."""

from itertools import pairwise

import torch

from bezoar.bench.transfer import epic_rounds, predicted, train_heads
from bezoar.runtime import generator

G = generator(0, "features")
LABELS = torch.arange(60) % 3
CENTRES = 3 * torch.randn(3, 5, generator=G)
FEATURES = CENTRES[LABELS] + torch.randn(2, 60, 5, generator=G)


def test_layers_learn_and_do_not_disturb_each_other() -> None:
    together = train_heads(FEATURES, LABELS, num_classes=3, seed=0)
    alone = train_heads(FEATURES[1:], LABELS, num_classes=3, seed=0)
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-3)
    right = predicted(together, FEATURES) == LABELS
    assert right.float().mean() > 0.9


def test_a_layer_does_not_learn_what_it_is_to_leave_out() -> None:
    wrong = LABELS.clone()
    wrong[:9] = (wrong[:9] + 1) % 3
    learns = torch.ones(2, 60, dtype=torch.bool)
    learns[1, :9] = False
    changed = FEATURES.clone()
    changed[:, :9] = -50.0
    found, same = (
        train_heads(f, wrong, num_classes=3, keep=lambda *_: learns, seed=0)
        for f in (FEATURES, changed)
    )
    assert found[1].equal(same[1])
    assert not found[0].equal(same[0])


def test_layers_learn_what_an_epoch_shows() -> None:
    asked: list[int] = []

    def shown(epoch: int) -> torch.Tensor:
        asked.append(epoch)
        return FEATURES

    given = train_heads(
        torch.zeros_like(FEATURES), LABELS, num_classes=3, shown=shown, seed=0
    )
    assert given.equal(train_heads(FEATURES, LABELS, num_classes=3, seed=0))
    assert asked == list(range(40))


def test_epic_drops_images_of_each_layer_by_itself() -> None:
    features = FEATURES.clone()
    features[1, 0] = 4 * CENTRES[1]  # labelled as 0: it stands alone in this version
    keep = epic_rounds(LABELS, versions=2, subset_rate=0.2)
    seen = []

    def noted(epoch: int, outputs: torch.Tensor) -> torch.Tensor:
        seen.append(keep(epoch, outputs))
        return seen[-1]

    train_heads(features, LABELS, num_classes=3, keep=noted, seed=0)
    assert seen[0].all()  # begins at epoch 1
    assert not seen[-1][1, 0]
    assert all((after <= before).all() for before, after in pairwise(seen))
    assert not seen[-1][0].equal(seen[-1][1])
