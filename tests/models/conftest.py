from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    """Give the layers that a test makes by hand the same first weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
