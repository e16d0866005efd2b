"""Parts of a page from results."""

import base64
from dataclasses import replace
from io import BytesIO

import pytest
import torch
from PIL import Image

from bezoar.data import ImageData, Unreadable
from bezoar.report import (
    choose,
    detection_sections,
    difference,
    evaluation_card,
    gallery,
    histogram,
    masked,
    picture,
    purification_sections,
    repair_sections,
    steps,
    unreadable_notes,
    verdict_of,
)
from bezoar.report.gallery import MAX_FLAGGED, MAX_PICTURES
from bezoar.results import (
    Detection,
    Evaluation,
    Provenance,
    PurificationReport,
    Repair,
    Verdict,
)

PROVENANCE = Provenance(
    method="m", settings={}, seed=0, seconds=1.0, forwards_per_image=1.0
)


def pixels(address: str) -> Image.Image:
    head, _, body = address.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(BytesIO(base64.b64decode(body))).convert("RGB")


def big(n: int, num_flagged: int) -> Detection:
    flagged = torch.zeros(n, dtype=torch.bool)
    flagged[:num_flagged] = True
    return Detection(
        ids=tuple(f"{i:07d}.png" for i in range(n)),
        labels=torch.full((n,), -1),
        class_names=(),
        scores=torch.arange(n).float(),
        p_values=None,
        flagged=flagged,
        reasons=("",) * n,
        columns={},
        verdict=verdict(num_flagged),
        provenance=PROVENANCE,
    )


def verdict(num_flagged: int) -> Verdict:
    return Verdict(
        status="found",
        rule="r",
        summary="s",
        num_flagged=num_flagged,
        expected_false_alarms=0.0,
    )


def test_flagged_images_come_first_then_the_others_by_rank(found: Detection) -> None:
    part = gallery(found)
    assert part["columns"]["id"][:3] == ["dog/7.png", "dog/4.png", found.ids[1]]
    assert part["columns"]["flagged"] == [True] * 3 + [False] * 9
    assert part["columns"]["rank"] == [1, 2, 3, *range(4, 13)]
    assert part["columns"]["reason"][0] == "small & sure"
    assert part["total"] == 12
    assert part["thumbnails"] == part["details"] == []


@pytest.mark.parametrize("num_flagged", [0, 30, 950, 20_000])
def test_a_large_set_shows_as_many_images_as_a_page_can_hold(num_flagged: int) -> None:
    found = big(30_000, num_flagged)
    chosen = choose(found)
    assert len(chosen.pictured) == MAX_PICTURES
    assert set(chosen.pictured) <= set(chosen.rows)
    shown = found.flagged[chosen.pictured]
    assert int(shown.sum()) == min(num_flagged, 800)
    assert int(found.flagged[chosen.rows].sum()) == min(num_flagged, MAX_FLAGGED)
    assert not found.flagged[chosen.rows].all()
    unflagged = [i for i in chosen.rows if not found.flagged[i]]
    assert unflagged == sorted(unflagged, reverse=True)
    assert unflagged[0] == 29_999


def test_evidence_shows_the_mask_what_it_keeps_and_neighbours(
    found: Detection, images: ImageData
) -> None:
    vectors = torch.zeros(12, 2)
    vectors[:, 0] = 1
    vectors[7] = vectors[4] = torch.tensor([0.1, 1.0])  # rows 0 and 1 are alike
    part = gallery(found, images=images, vectors=vectors)
    first = part["details"][0]
    assert first["row"] == 0
    assert first["neighbours"][0] == 1
    assert len(first["neighbours"]) == 6
    exact = images.images[7].permute(1, 2, 0).flatten().tolist()
    assert list(pixels(first["pattern"]).tobytes()) == exact  # the mask keeps all
    assert pixels(first["mask"]).getpixel((0, 0)) == (255, 255, 255)
    assert len(part["thumbnails"]) == 12


def test_names_of_any_length_do_not_swell_the_page(found: Detection) -> None:
    long = replace(found, ids=tuple(f"{i}" + "\u00fc" * 90_000 for i in range(12)))
    assert len(gallery(long)["columns"]["id"]) == 1


def test_a_mask_hides_what_it_does_not_keep() -> None:
    image = torch.full((3, 8, 8), 250, dtype=torch.uint8)
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[0, 0] = 255
    kept = masked(image, mask)
    assert kept[:, 0, 0].tolist() == [250] * 3
    assert kept[:, 1:, 1:].unique().tolist() == [128]


def test_no_change_is_grey_and_a_rise_is_lighter() -> None:
    before = torch.full((1, 2, 2), 100, dtype=torch.uint8)
    after = before.clone()
    after[0, 0, 0] = 110
    after[0, 1, 1] = 90
    shown = difference(before, after)
    assert shown[0, 0, 1] == 128
    assert shown[0, 0, 0] == 168  # 127.5 + 8 x 10 / 2, rounded
    assert shown[0, 1, 1] == 88


def test_pictures_keep_small_images_and_shrink_large_ones() -> None:
    one_pixel = torch.zeros(3, 32, 32, dtype=torch.uint8)
    one_pixel[:, 31, 31] = 255
    assert pixels(picture(one_pixel)).convert("L").tobytes()[-1] > 150
    assert pixels(picture(one_pixel, exact=True)).getpixel((31, 31)) == (255, 255, 255)
    large = torch.zeros(1, 300, 150, dtype=torch.uint8)
    assert pixels(picture(large)).size == (48, 96)


def test_a_histogram_counts_every_finite_score_once() -> None:
    scores = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([1e6, float("nan")])])
    flagged = scores > 0.5
    part = histogram("Scores", scores, flagged, bins=20)
    assert sum(part["counts"]) == 1000
    assert sum(part["flagged"]) == int(flagged.sum())
    assert part["edges"][-1] <= 1e6
    assert part["threshold"] == pytest.approx(scores[flagged].nan_to_num(9).min())
    assert part["threshold_label"] == "flagged from here on"
    flagged[0] = True  # by its class, though its score is low
    mixed = histogram("Scores", scores, flagged, bins=20)
    assert mixed["threshold_label"] == "lowest score flagged"


@pytest.mark.parametrize("values", [[], [2.0], [2.0, 2.0], [float("nan")]])
def test_a_histogram_of_next_to_nothing(values: list[float]) -> None:
    scores = torch.tensor(values)
    part = histogram("Scores", scores, torch.zeros(len(values), dtype=torch.bool))
    assert sum(part["counts"]) == int(scores.isfinite().sum())
    assert part["threshold"] is None


def test_a_verdict_names_the_class_and_counts(found: Detection) -> None:
    told = verdict_of(found)
    assert told["tone"] == "alarm"
    assert told["target_class"] == "<b>dog</b>"
    assert told["expected_false_alarms"] == 0.4
    nothing = replace(found.verdict, status="nothing found", num_flagged=0)
    calm = verdict_of(replace(found, verdict=nothing))
    assert calm["tone"] == "calm"
    assert calm["expected_false_alarms"] is None


def test_sections_without_content_are_left_out(found: Detection) -> None:
    bare = replace(found, verdict=replace(found.verdict, health=(), classes=()))
    assert [p["type"] for p in detection_sections(bare)] == ["histogram", "gallery"]
    assert steps([])["rows"] == []
    many = unreadable_notes([Unreadable(id=f"{i}", reason="bad") for i in range(300)])
    assert len(many["items"]) == 201
    assert "100 more" in many["items"][-1]


def test_a_purification_shows_before_after_and_difference(images: ImageData) -> None:
    infinite = float("inf")
    told = PurificationReport(
        ids=images.ids,
        labels=images.labels,
        class_names=images.class_names,
        columns={"psnr": torch.tensor([infinite] + [30.0] * 11)},
        summary="done",
        provenance=PROVENANCE,
        health=("a warning",),
        figures={"rate": 0.5},
    )
    parts = purification_sections(told, before=images, after=images)
    assert [p["type"] for p in parts] == ["notes", "pictures", "facts", "table"]
    row = parts[1]["rows"][0]
    assert row["note"] == "unchanged"
    assert parts[1]["rows"][1]["note"] == "30.0 dB"
    assert pixels(row["pictures"][2]).getpixel((0, 0)) == (128, 128, 128)
    assert parts[3]["rows"] == [["psnr", 30.0]]


def test_a_repair_card_tells_what_is_better() -> None:
    repair = Repair(
        model=torch.nn.Flatten(),
        status="repaired",
        summary="forgot it",
        stop_reason="all forgotten",
        history=(
            {"held_out_accuracy": 0.8, "suspicious_confidence": 0.9},
            {"held_out_accuracy": 0.7, "suspicious_confidence": float("nan")},
        ),
        provenance=PROVENANCE,
        image_ids={"suspicious": ("a", "b")},
    )
    before = Evaluation(clean_accuracy=0.9, num_clean=10, attack_success_rate=1.0)
    after = replace(before, attack_success_rate=0.02)
    parts = repair_sections(repair, before=before, after=after)
    rows = {row["name"]: row for row in parts[0]["rows"]}
    assert rows["attack success rate"]["after"] == 0.02
    assert rows["attack success rate"]["better"] == "lower"
    assert "confidence in suspicious labels" not in rows  # not known after
    assert ["suspicious images", "2"] in parts[1]["rows"]
    assert evaluation_card(None, after)["rows"][0]["before"] is None
