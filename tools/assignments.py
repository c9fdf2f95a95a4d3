"""Make the student edition of the assignments from the source edition.

nbgrader's own steps do the work: solutions become stubs, hidden tests and outputs are taken out,
and cells that are not the learner's are locked. The result depends on the source alone; making it
twice changes no byte.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console  # noqa: E402

console.prepare("make setup-instructor")

import nbformat  # noqa: E402
import nbgrader  # noqa: E402, F401 so that a set-up without it is noticed at once
from nbformat import NotebookNode  # noqa: E402

from slingshot_grader.assignment import make_student_edition  # noqa: E402
from tools.common.files import write_atomically  # noqa: E402
from tools.notebooks import display_name, serialize  # noqa: E402

SOURCE = ROOT / "notebooks" / "assignments" / "source"
RELEASE = ROOT / "notebooks" / "assignments" / "release"


def main(argv: Sequence[str] | None = None) -> int:
    """Make every student edition; with ``--check`` return 1 when one would change."""
    args = parse_arguments(argv)
    sources = sorted(args.source.glob("*.ipynb"))
    if not sources:
        print(f"no notebooks in {args.source}", file=sys.stderr)
        return 1
    stale = [path for path in args.release.glob("*.ipynb") if path.name not in names(sources)]
    changed = []
    for source in sources:
        try:
            text = student_edition(source)
        except Exception as error:
            print(f"{display_name(source)}: {error}", file=sys.stderr)
            return 1
        target = args.release / source.name
        if not target.is_file() or target.read_text("utf-8") != text:
            changed.append(target)
            if not args.check:
                args.release.mkdir(parents=True, exist_ok=True)
                write_atomically(target, text)
    word = "would change" if args.check else "written"
    for path in changed:
        print(f"{display_name(path)}: {word}")
    for path in stale:
        print(f"{display_name(path)}: has no source; delete it", file=sys.stderr)
    if not changed and not stale:
        print(f"student edition of {len(sources)} assignments: unchanged")
    return 1 if stale or (args.check and changed) else 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if an edition would change"
    )
    parser.add_argument("--source", type=Path, default=SOURCE, help="default: %(default)s")
    parser.add_argument("--release", type=Path, default=RELEASE, help="default: %(default)s")
    return parser.parse_args(argv)


def names(paths: Sequence[Path]) -> set[str]:
    """The names of the files."""
    return {path.name for path in paths}


def student_edition(source: Path) -> str:
    """Return the text of the student edition; raise what nbgrader raises for a malformed source."""
    notebook: NotebookNode = nbformat.read(source, as_version=4)  # type: ignore[no-untyped-call]
    return serialize(make_student_edition(notebook))


if __name__ == "__main__":
    sys.exit(main())
