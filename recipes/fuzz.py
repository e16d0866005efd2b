"""Look for hostile files with a fuzzer that follows which lines they reach.

``python recipes/fuzz.py tars -max_total_time=600`` makes tars as the suite of faults
does, but lets atheris (``pip install atheris``) choose: it keeps what reached new lines
of bezoar and changes it further. Kinds are those of ``bezoar.bench.hostile_looks``;
what follows the kind goes to libFuzzer. A fault ends it, and leaves a file
``crash-...`` beside it; give that file in place of options to see it again.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Fuzz one kind of file."""
    try:
        import atheris
    except ImportError:
        sys.exit("expected atheris, got none; install it: pip install atheris")
    with atheris.instrument_imports(include=["bezoar"]):
        from bezoar.bench.guided import Guided
        from bezoar.bench.hostile_looks import LOOKS, look_at
    kind, *options = sys.argv[1:] or [""]
    if kind not in LOOKS:
        sys.exit(f"expected one of {', '.join(LOOKS)}, got {kind!r}; give one first")

    def look(content: bytes) -> None:
        look_at(kind, Guided(content))

    # Files of hundreds of bytes from the start: the first choices are the format's.
    atheris.Setup([sys.argv[0], "-len_control=0", "-timeout=20", *options], look)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
