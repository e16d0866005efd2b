import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.models import convnet, fingerprint
from bezoar.models.weights import put_weights, read_weights


class Bomb:
    """Makes a file when it is unpickled, as an attack would run its code."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return open, (str(self.mark), "w")


def state() -> dict[str, Tensor]:
    return {"a": torch.rand(2), "b": torch.rand(3)}


def refusal(path: Path, *, unsafe_pickle: bool = False) -> str:
    with pytest.raises(ModelError) as caught:
        read_weights(path, unsafe_pickle=unsafe_pickle)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_safetensors_come_back_as_they_were(tmp_path: Path) -> None:
    weights = {**state(), "count": torch.tensor(3)}
    save_file(weights, tmp_path / "w.safetensors")
    read = read_weights(tmp_path / "w.safetensors")
    assert all(read[name].equal(weights[name]) for name in weights)


# A header of 128 bytes makes a safetensors file begin with 0x80, as a pickle does.
def test_safetensors_that_look_like_a_pickle_are_read(tmp_path: Path) -> None:
    name = "x" * 69
    save_file({name: torch.zeros(1)}, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes()[:1] == b"\x80"
    assert list(read_weights(tmp_path / "w.bin")) == [name]


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_pickle_is_refused_under_any_name(tmp_path: Path, name: str) -> None:
    torch.save(state(), tmp_path / name)
    message = refusal(tmp_path / name)
    assert f"got the pickle '{name}', which may run code when it is opened" in message
    assert "--unsafe-pickle" in message


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("unsafe_pickle", [True, False])
def test_a_bomb_never_goes_off(
    tmp_path: Path, legacy: bool, unsafe_pickle: bool
) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "w.pth"
    torch.save({"a": Bomb(mark)}, path, _use_new_zipfile_serialization=not legacy)
    message = refusal(path, unsafe_pickle=unsafe_pickle)
    assert not mark.exists()
    if unsafe_pickle:
        assert "could run any code with your rights, so bezoar never does" in message
    # The bomb is armed: plain unpickling, which we never do, sets it off.
    pickle.loads(pickle.dumps(Bomb(mark))).close()
    assert mark.exists()


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_an_allowed_pickle_is_unpacked(
    tmp_path: Path, nest: str | None, prefix: str
) -> None:
    weights = state()
    named = {prefix + name: tensor for name, tensor in weights.items()}
    torch.save({nest: named, "epoch": 3} if nest else named, tmp_path / "w.pt")
    read = read_weights(tmp_path / "w.pt", unsafe_pickle=True)
    assert set(read) == set(weights)
    assert all(read[name].equal(weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(2), "named tensors in 'w.pt', got a Tensor; save the"),
        ({}, "named tensors in 'w.pt', got nothing; save the"),
        ({"a": torch.zeros(2), "lr": 0.1}, "got a float as 'lr'; save the model's"),
    ],
)
def test_an_allowed_pickle_must_hold_named_tensors(
    tmp_path: Path, content: object, message: str
) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert message in refusal(tmp_path / "w.pt", unsafe_pickle=True)


def test_what_is_no_weights_is_told(tmp_path: Path) -> None:
    assert "got no such file" in refusal(tmp_path / "none.safetensors")
    (tmp_path / "text.txt").write_text("not weights at all")
    assert "which is something else or damaged" in refusal(tmp_path / "text.txt")
    save_file(state(), tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-4])
    assert "cannot be read (SafetensorError: " in refusal(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("fault", [torch.nan, torch.inf])
def test_a_tensor_that_is_not_finite_is_named(tmp_path: Path, fault: float) -> None:
    weights = state()
    weights["b"][1] = fault
    save_file(weights, tmp_path / "w.safetensors")
    assert "got NaN or infinity in 'b' of" in refusal(tmp_path / "w.safetensors")


def test_weights_must_fit_in_names_and_shapes() -> None:
    weights = nn.Linear(2, 3).state_dict()
    path = Path("w.safetensors")
    with pytest.raises(
        ModelError, match=r"Linear in 'w.safetensors', got a file witho"
    ):
        put_weights(nn.Linear(2, 3), {"weight": weights["weight"]}, path=path)
    extra = {f"extra{i or ''}": torch.zeros(1) for i in range(4)}
    with pytest.raises(ModelError, match="with unknown extra, extra1, extra2 and more"):
        put_weights(nn.Linear(2, 3), {**weights, **extra}, path=path)
    with pytest.raises(ModelError, match=r"weight \(3, 2\) instead of \(3, 4\); name"):
        put_weights(nn.Linear(4, 3), weights, path=path)


def test_old_files_without_counters_fit() -> None:
    source, target = convnet(2, width=4, seed=1), convnet(2, width=4)
    weights = {n: w for n, w in source.state_dict().items() if "num_batches" not in n}
    put_weights(target, weights, path=Path("old"))
    assert target.fc.weight.equal(source.fc.weight)


def test_fingerprint_sees_every_bit_and_no_wrapper() -> None:
    net = convnet(2, width=4)
    first = fingerprint(net)
    assert first == fingerprint(nn.DataParallel(net))
    weight = net.get_parameter("stage2.conv.weight")
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    assert first == fingerprint(net)
    net.get_buffer("stage2.bn.running_mean")[0] += 1e-7
    assert fingerprint(net) != first


def test_fingerprint_sees_types_shapes_and_names() -> None:
    class Holds(nn.Module):
        def __init__(self, **tensors: Tensor) -> None:
            super().__init__()
            for name, tensor in tensors.items():
                self.register_buffer(name, tensor)

    marks = [
        fingerprint(Holds(a=torch.zeros(2, 2), b=torch.ones(()))),
        fingerprint(Holds(c=torch.zeros(2, 2), b=torch.ones(()))),
        fingerprint(Holds(a=torch.zeros(4), b=torch.ones(()))),
        fingerprint(Holds(a=torch.zeros(2, 2).int(), b=torch.ones(()))),
        fingerprint(Holds(a=torch.zeros(2, 2), b=torch.ones((), dtype=torch.bfloat16))),
        fingerprint(Holds(a=torch.zeros(2, 2), b=torch.ones(()), c=torch.zeros(0))),
    ]
    assert len(set(marks)) == len(marks)
