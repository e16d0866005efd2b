"""Detectors of pairs: by similarity, and by the density around the images."""

import pytest
import torch

from bezoar.data import PairData
from bezoar.detect import LocalDensity, PairSimilarity
from bezoar.detect.local_density import densities
from bezoar.errors import InputError
from bezoar.metrics import auroc
from bezoar.models import pair_similarities
from bezoar.results import Scores
from bezoar.runtime import Runtime
from tests.repair.pairs import Table, pairs

FLOAT = Runtime(dtype=torch.float32, batch_size=64)


def test_the_gap_to_a_reference_ranks_planted_pairs_first() -> None:
    data, is_planted = pairs()
    model, reference = Table(backdoor=True), Table(backdoor=False)
    found = PairSimilarity().detect(
        data, model=model, reference=reference, runtime=FLOAT
    )
    assert auroc(found.scores, is_planted) == 1.0
    assert found.verdict.status == "ranking"
    assert not found.flagged.any()
    a, b = (
        pair_similarities(m, data.images, data.captions) for m in (reference, model)
    )
    torch.testing.assert_close(found.columns["similarity_reference"], a)
    torch.testing.assert_close(found.columns["similarity_model"], b)
    torch.testing.assert_close(found.scores, b - a)


def test_review_flags_the_most_similar_without_a_reference() -> None:
    data, _ = pairs()
    found = PairSimilarity(threshold="review").detect(
        data, model=Table(backdoor=True), runtime=FLOAT
    )
    assert int(found.flagged.sum()) == 12  # 2 % of 600
    assert found.scores[found.flagged].min() >= found.scores[~found.flagged].max()
    place = int(found.flagged.nonzero()[0])
    assert found.reasons[place].startswith("similarity 1.00 under the model")


def test_blocks_give_the_same_table_as_all_at_once() -> None:
    data, _ = pairs(total=200)
    method, model = PairSimilarity(), Table(backdoor=True)
    parts = [
        method.score(data.take(rows), model=model, seed=0, runtime=FLOAT)
        for rows in torch.arange(200).split(64)
    ]
    joined = method.conclude(
        Scores.join(parts), class_names=data.class_names, seed=0, seconds=0.0
    )
    whole = method.detect(data, model=model, runtime=FLOAT)
    torch.testing.assert_close(joined.scores, whole.scores, atol=1e-6, rtol=0)
    assert joined.ids == whole.ids
    with pytest.raises(InputError, match="expected the column"):
        method.conclude(
            Scores(ids=data.ids, labels=data.labels, columns={}),
            class_names=(),
            seed=0,
            seconds=0.0,
        )


def plain(vectors: torch.Tensor, pool: torch.Tensor, k: int) -> list[list[float]]:
    """The three densities in loops; vectors and pool are the same set."""

    def near(i: int) -> list[tuple[float, int]]:
        return sorted(
            ((vectors[i] - pool[j]).norm().item(), j)
            for j in range(len(pool))
            if j != i
        )[:k]

    def lid(j: int) -> float:
        own = [d for d, _ in near(j)]
        logs = [torch.tensor(d / own[-1] + 1e-4).log().item() for d in own]
        return -k / sum(logs)

    rows = []
    for i in range(len(vectors)):
        own = near(i)
        reach = own[-1][0]
        theirs = [(near(j)[-1][0], lid(j)) for _, j in own]
        slof = sum(reach / d for d, _ in theirs) / k
        dao = sum(n * torch.tensor(reach / d).log().item() for d, n in theirs) / k
        rows.append([reach, slof, dao])
    return rows


def test_densities_are_those_of_plain_loops() -> None:
    points = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    fast = densities(points, points, places=torch.arange(30), num_neighbors=5)
    expected = torch.tensor(plain(points, points, 5))
    torch.testing.assert_close(torch.stack(fast, 1), expected, atol=1e-3, rtol=1e-3)


def test_a_point_far_from_two_dense_clusters_is_the_loneliest() -> None:
    stream = torch.Generator().manual_seed(0)
    one, two = 0.1 * torch.randn(2, 100, 8, generator=stream)
    points = torch.cat([one, two + 3, torch.full((1, 8), 1.5)])
    for scores in densities(points, points, places=torch.arange(201), num_neighbors=16):
        assert int(scores.argmax()) == 200


def test_duplicates_give_numbers() -> None:
    points = torch.cat([torch.zeros(40, 4), torch.randn(20, 4)])
    for scores in densities(points, points, places=torch.arange(60), num_neighbors=8):
        assert scores.isfinite().all()


def test_few_planted_images_among_clean_ones_are_lonely() -> None:
    data, is_planted = pairs(planted=5, noise=0)
    noisy = data.images + torch.randint(0, 20, data.images.shape).to(torch.uint8) % 20
    data = PairData(images=noisy, captions=data.captions, ids=data.ids)
    found = LocalDensity(kind="k_distance").detect(
        data, model=Table(backdoor=False), runtime=FLOAT
    )
    assert found.scores.shape == (600,)
    assert found.columns.keys() == {"k_distance", "slof", "dao"}
    apart = LocalDensity(kind="k_distance").detect(
        data.subset(is_planted),
        model=Table(backdoor=True),
        pool=data.subset(~is_planted),
        runtime=FLOAT,
    )
    assert len(apart.scores) == 5


def test_settings_and_pools_without_sense_are_refused() -> None:
    data, _ = pairs(total=200)
    with pytest.raises(InputError, match="num_neighbors of at least 2"):
        LocalDensity(num_neighbors=1)
    with pytest.raises(InputError, match="review_rate"):
        PairSimilarity(review_rate=0.0)
    with pytest.raises(InputError, match="more than 16 images"):
        LocalDensity().detect(
            data, model=Table(backdoor=True), pool=data.take(torch.arange(10))
        )
