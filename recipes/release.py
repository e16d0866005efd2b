"""Build what is released: twice, and see that the bytes are the same.

Two clones of what is committed are built. The wheel goes into a bare environment, in
which the demo has to run; what that environment holds is the bill of materials
(CycloneDX). ``dist`` gets the wheel, the sources and the bill. Needs git, and an index
of packages that pip can reach.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("build>=1.3", "cyclonedx-bom>=7")


def main() -> int:
    """Build, compare, install, run; return 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    out = parser.parse_args().out
    start = time.perf_counter()
    with TemporaryDirectory(prefix="bezoar-release-") as name:
        folder = Path(name)
        tools = environment(folder / "tools", *TOOLS)
        first, second = (built(folder / place, tools) for place in ("one", "two"))
        claims = [claim("same names", sorted(first) == sorted(second))]
        claims += [claim(f"same bytes: {n}", first[n] == second.get(n)) for n in first]
        wheel = next((folder / "one" / "dist").glob("*.whl"))
        bare = environment(folder / "bare", "torch")
        call(bare, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
        demo = subprocess.run(
            [
                bare,
                "-m",
                "bezoar",
                "demo",
                "--part",
                "digits",
                "--out",
                folder / "demo",
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        claims.append(claim("the demo runs in a bare environment", not demo.returncode))
        bill = folder / f"{wheel.name.removesuffix('.whl')}.cdx.json"
        words = ("environment", bare, "--output-reproducible", "-o", bill)
        call(tools, "-m", "cyclonedx_py", *words)
        parts = [part["name"] for part in json.loads(bill.read_text())["components"]]
        claims.append(claim("the bill names what is needed", "torch" in parts))
        out.mkdir(parents=True, exist_ok=True)
        for path in (*(folder / "one" / "dist").iterdir(), bill):
            shutil.copy(path, out)
    seconds = round(time.perf_counter() - start, 1)
    print(json.dumps({"recipe": "release", "seconds": seconds, "claims": claims}))
    return 0 if all(row["passed"] for row in claims) else 1


def claim(name: str, passed: bool) -> dict[str, object]:
    """Return one row of the result."""
    return {"name": name, "value": passed, "gate": "= True", "passed": passed}


def environment(folder: Path, *packages: str) -> Path:
    """Make a virtual environment with some packages; return its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    # torch alone and first: with other packages it may bring gigabytes of CUDA.
    limits = ("-c", ROOT / "constraints.txt") if packages == ("torch",) else ()
    call(python, "-m", "pip", "install", "-q", *limits, *packages)
    return python


def built(folder: Path, tools: Path) -> dict[str, str]:
    """Build a clone of what is committed; return the files with their hashes."""
    git = shutil.which("git") or sys.exit("expected git, got none; install it")
    call(git, "clone", "-q", ROOT, folder)
    when = subprocess.check_output([git, "log", "-1", "--format=%ct"], cwd=folder)
    call(tools, "-m", "build", folder, env={"SOURCE_DATE_EPOCH": when.decode().strip()})
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "dist").iterdir())
    }


def call(*words: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a program; end with what it said where it fails."""
    done = subprocess.run(
        list(map(str, words)),
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        told = done.stderr.strip() or done.stdout.strip()
        sys.exit(f"expected {' '.join(map(str, words))} to end well, got: {told}")


if __name__ == "__main__":
    sys.exit(main())
