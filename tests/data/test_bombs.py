"""Parquet files and images that unpack to far more than they are, or say so."""

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bezoar.data import open_source
from bezoar.data.choice import encode_png
from bezoar.errors import InputError

SRC = Path(__file__).parents[2] / "src"
PNG = encode_png(torch.zeros(3, 8, 8, dtype=torch.uint8))
PEAK = """
import sys
from pathlib import Path
from bezoar.data import open_source
data, bad = open_source(Path(sys.argv[1])).read(image_size=(8, 8))
(line,) = (x for x in open("/proc/self/status") if x.startswith("VmHWM"))
print(len(data), len(bad), int(line.split()[1]) >> 10)
"""


def varint(number: int) -> bytes:
    number, parts = 2 * number, []  # zigzag, as thrift has it
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


@pytest.mark.parametrize("claimed", [3, 10**7, 10**15])
def test_a_footer_that_claims_rows_is_refused(tmp_path: Path, claimed: int) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [PNG, PNG]}), path)
    content = path.read_bytes()
    cut = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer = content[cut:-8]
    count = footer.index(b"\x16\x04\x19")  # two rows, then the list of row groups
    footer = footer[:count] + b"\x16" + varint(claimed) + footer[count + 2 :]
    path.write_bytes(content[:cut] + footer + struct.pack("<I", len(footer)) + b"PAR1")
    with pytest.raises(InputError, match=f"claims {claimed:,} rows in all and 2 in"):
        open_source(path)


def test_more_rows_than_bytes_can_hold_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [PNG] * 100_000}), path)
    assert open_source(path).num_images == 100_000
    monkeypatch.setattr("bezoar.data.parquet._ROWS_PER_BYTE", 1)
    with pytest.raises(InputError, match="claims 100,000 rows in"):
        open_source(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_kilobyte_of_parquet_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    large = pa.array([PNG + bytes(8 << 20)] * 100)  # 800 MiB, from a dictionary
    pq.write_table(
        pa.table({"image": large}), path, compression="zstd",
        dictionary_pagesize_limit=1 << 30,
    )  # fmt: skip
    assert path.stat().st_size < 2000
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)],
        env={**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    read, bad, peak = map(int, done.stdout.split())
    assert (read, bad) == (100, 0)
    assert peak < 850  # MiB; 620 were measured, and 2,985 with whole batches


def test_deep_images_are_scaled_row_by_row_to_the_same_values(tmp_path: Path) -> None:
    values = (torch.arange(5 * 7) * 1871).reshape(5, 7)
    file = io.BytesIO()
    Image.fromarray(values.numpy().astype("uint16")).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    data, _ = open_source(tmp_path).read(image_size=(5, 7))
    expected = (values.double() * 255 / 65535).round().to(torch.uint8)
    torch.testing.assert_close(data.images[0, 0], expected, atol=0, rtol=0)
