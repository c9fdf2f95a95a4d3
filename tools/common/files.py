"""Writing a file so that an interruption leaves the old one whole.

Standard library only, and no syntax newer than Python 3.6, for tools/bootstrap.py.
"""

import os
import shutil
import tempfile
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: whoever reads it finds the old text or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=str(path.parent), prefix=f".{path.name[:20]}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        if path.exists():
            shutil.copymode(str(path), temporary)
        else:
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)  # as open() would have made it
        os.replace(temporary, str(path))
    except BaseException:
        os.unlink(temporary)
        raise
