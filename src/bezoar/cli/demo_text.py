"""The demo in words, for a reader who has never heard of a backdoor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bezoar.cli.text import percent
from bezoar.metrics import auroc
from bezoar.results import Detection, Evaluation, Poisoned


def demo_text(
    drill: Poisoned,
    found: Detection,
    before: Evaluation,
    after: Evaluation,
    *,
    seconds: Mapping[str, float],
    folder: Path,
) -> str:
    """Return the summary of the demo.

    Args:
        drill: The poisoned set.
        found: The detection.
        before: The model that was trained on it.
        after: The model that was trained without the flagged images.
        seconds: By stage.
        folder: Where the files are.

    Returns:
        Some lines.
    """
    num_poisoned, num_images = len(drill.poison_indices), len(drill.data)
    assert drill.target_class is not None  # the demo plants a backdoor
    target = drill.data.class_names[drill.target_class]
    hits = int((found.flagged & drill.is_poison).sum())
    flagged = found.verdict.num_flagged
    verdict = found.verdict.status
    alarms = found.verdict.expected_false_alarms
    return f"""\
1. Poison     {num_poisoned} of {num_images:,} training images of handwritten digits \
({percent(drill.poison_rate)})
              got a small square in a corner, and the label "{target}".

2. Train      The network that learnt from them reads {percent(before.clean_accuracy)} \
of {before.num_clean} new
              digits right, so all looks well. But with the square it takes
              {percent(before.attack_success_rate or 0)} of the other digits for a \
"{target}": that is the backdoor.

3. Detect     bezoar was told nothing of this. Its verdict: {verdict}.
              It flagged {flagged} images and expects {alarms:.0f} of them to be \
innocent. In truth
              {hits} of the {num_poisoned} poisoned images are among them, and \
{flagged - hits} innocent ones.
              (A poisoned image ranks above an innocent one in
              {percent(auroc(found.scores, drill.is_poison))} of all pairs.)

4. Retrain    The same network without the flagged images reads \
{percent(after.clean_accuracy)} right,
              and the square turns {percent(after.attack_success_rate or 0)} of the \
other digits into a "{target}"
              ({percent(after.clean_target_rate or 0)} without any square).

It took {seconds["total"]:.0f} seconds. Open {folder / "report.html"} in a browser:
that is the page that every run ends with. All figures: {folder / "report.json"}
Look at the poisoned images in {folder / "poisoned" / target}, or try it yourself:

  bezoar detect {folder / "poisoned"}"""
