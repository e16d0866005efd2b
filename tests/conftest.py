"""What holds for every test: nothing is fetched, nothing is shown."""

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

_LONGEST = "docs/quickstart.md"  # minutes: last, it would keep one worker waiting


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first, so that all workers end at the same time."""
    items.sort(
        key=lambda item: (
            _LONGEST not in item.name,
            item.get_closest_marker("slow") is None,
        )
    )
