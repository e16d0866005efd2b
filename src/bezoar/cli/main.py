"""``bezoar VERB WHAT [METHOD] ...``: names the verbs, runs one, explains failures.

Only the standard library is imported here, so that ``bezoar --help`` is instant; a
verb's own module is imported when it is named.
"""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from bezoar import __version__
from bezoar.cli.failures import DONE, ERROR, explain
from bezoar.cli.text import say, silence

VERBS = {
    "guard": "check a set, find the poison, write it clean, mend the model, report",
    "detect": "find poisoned images in a set, and write the set without them",
    "purify": "take poison out of images, and write the set in the format it came in",
    "repair": "make a model forget what a detection found in its data",
    "report": "make the page of a run anew, or export what it found",
    "train": "train a classifier on a set of images",
    "train-energy": "train the network that purify's pure-ebm walks down",
    "train-denoiser": "train the network that purify's pure-ddpm denoises with",
    "evaluate": "measure a classifier's accuracy, and how often a trigger works",
    "attack": "poison a set, to drill on",
    "demo": "poison handwritten digits, find the poison, retrain, measure",
}

_HELP = f"""\
usage: bezoar VERB WHAT [METHOD] [OPTIONS]

Finds poison in image data that you did not make yourself.

verbs:
{chr(10).join(f"  {verb:15}{text}" for verb, text in VERBS.items())}

options:
  --help    show this help; after a verb, all its options
  --version show the version
  --debug   after a verb: show the traceback of an error

exit codes:
  0  done, or nothing found
  1  poison found (guard and detect alone)
  2  an error, or a call that makes no sense
  3  nothing to scan

bezoar guard photos --out run
                          checks photos/, finds the poison in it, writes the set and
                          a model without it, and a page that tells of it all
bezoar detect photos      ranks the images of photos/ by suspicion and says whether
                          there is a backdoor in them
bezoar purify photos --out clean
                          writes the images of photos/ without unlearnable noise
bezoar repair model.safetensors --data photos --detection run --out fixed
                          writes a model that has forgotten what was found
bezoar demo               shows all of it on handwritten digits
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; None takes those of the process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(words)
    except SystemExit as stop:  # tyro, after help (0) or an error of usage (2)
        return stop.code if isinstance(stop.code, int) else ERROR
    except BrokenPipeError:  # the reader of our help has gone, as "head" does
        silence()
        return DONE
    except BaseException as error:
        code, sentence = explain(error)
        if "--debug" in words:
            traceback.print_exc()
        sys.stderr.write(f"bezoar: error: {sentence}\n")
        return code


def _run(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        say(_HELP.rstrip())
        return DONE if words else ERROR
    if words[0] in ("--version", "-V"):
        say(f"bezoar {__version__}")
        return DONE
    verb = words[0]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0)
        sys.stderr.write(
            f"bezoar: error: expected a verb ({', '.join(VERBS)}), got {verb!r}; did "
            f"you mean {near[0]}? bezoar --help explains them\n"
        )
        return ERROR
    command = import_module(f"bezoar.cli.{verb.replace('-', '_')}").command
    code: int = command(words[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
