"""A network for ``purify``, from a set of images to a file and a few words about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bezoar.cli.failures import DONE
from bezoar.cli.options import Reading, Running
from bezoar.cli.runs import check_outside
from bezoar.cli.sets import image_size_for, read_whole
from bezoar.cli.sharing import training_of
from bezoar.cli.text import facts, say, say_json, shown
from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.models import EnergyNet, UNet
from bezoar.runtime import Runtime
from bezoar.train import forget_training

Net = TypeVar("Net", bound=EnergyNet | UNet)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to train on, and what is made of the network.

    Attributes:
        role: What the network is called, as an option of ``purify``.
        data: The set.
        out: The file.
        image_size: Height and width that the user asked for.
        sides: Those taken where nobody asks; None takes the most common size.
        seed: The seed given.
        json: Print one JSON object instead of text.
        reading: How to read the set.
        running: On what to run.
        method: The method of ``purify`` that takes the network.
    """

    role: str
    data: str
    out: str
    image_size: int | None
    sides: tuple[int, int] | None = None
    seed: int
    json: bool
    reading: Reading
    running: Running
    method: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """What there is to say about a trained network.

    Attributes:
        size: How large it is.
        course: What was done, and how much of it.
        figures: The same for machines.
    """

    size: str
    course: tuple[str, str]
    figures: Mapping[str, object]


def carry_out(
    order: Order,
    *,
    train: Callable[[ImageData, Runtime], Net],
    save: Callable[[Net, Path], None],
    tell: Callable[[Net], Told],
) -> int:
    """Train a network on a set, save it and tell about it.

    Args:
        order: What to train on, and what is made of the network.
        train: Trains it.
        save: Writes it.
        tell: Says what came of it.

    Returns:
        The exit code.

    Raises:
        InputError: If the file's name has another end.
    """
    path = Path(order.out)
    if path.suffix != ".safetensors":
        raise InputError(
            f"expected --out to end in .safetensors, got {order.out!r}; the card goes "
            "beside it in .json"
        )
    check_outside(path, order.data, option="--out")
    source = order.reading.open(order.data)
    size = order.sides if order.image_size is None else None
    size = size or image_size_for(source, asked=order.image_size)
    with training_of(path, order.running) as (ranks, runtime):
        images, unreadable = read_whole(
            source, image_size=size, report=runtime.progress
        )
        net = train(images, runtime)
        if not ranks.leads:
            return DONE
        net.card = {"name": path.stem, **net.card}
        save(net, path)
        forget_training(runtime.work_dir)
    told = tell(net)
    if order.json:
        say_json(
            {
                order.role: str(path),
                "training": net.card["settings"],
                "seed": order.seed,
                "num_images": len(images),
                "num_unreadable": len(unreadable),
                **told.figures,
            }
        )
        return DONE
    height, width = size
    call = f"bezoar purify SET {order.method} --{order.role} {path} --out CLEAN"
    rows = [
        (order.role, f"{told.size} in {path}"),
        ("images", f"{len(images):,} of {height}x{width} pixels"),
        told.course,
        *(("unreadable", f"{shown(u.id)}: {u.reason}") for u in unreadable[:3]),
        ("unreadable", f"{len(unreadable):,} in all" if len(unreadable) > 3 else ""),
        ("next", call),
    ]
    say(facts(rows))
    return DONE
