"""What a process that the set-up starts inherits: where packages come from, not where they go.

pip and Python read dozens of variables, and pip's configuration files hold the same settings. Some
say how to reach an index, and must count. Others install elsewhere, leave packages out, or let
Python find modules that are not those of .venv. So what is known to be harmless is let through, and
the rest of each family is not; what pip and Python will read in years to come is not either. The
Makefile leaves out the same. Standard library only, and no syntax newer than Python 3.6.
"""

import ast
import os
import re
import subprocess
from collections.abc import Mapping

PIP = {
    *("INDEX_URL", "PYPI_URL", "EXTRA_INDEX_URL", "NO_INDEX", "FIND_LINKS", "TRUSTED_HOST"),
    *("CERT", "CLIENT_CERT", "PROXY", "TIMEOUT", "DEFAULT_TIMEOUT", "RETRIES", "RESUME_RETRIES"),
    *("CACHE_DIR", "NO_CACHE_DIR", "CONSTRAINT", "BUILD_CONSTRAINT", "KEYRING_PROVIDER"),
    *("USE_FEATURE", "USE_DEPRECATED", "CONFIG_FILE", "LOG", "PROGRESS_BAR", "NO_COLOR"),
    *("NO_INPUT", "DISABLE_PIP_VERSION_CHECK"),
}
PYTHON = {
    *("DONTWRITEBYTECODE", "FAULTHANDLER", "HASHSEED", "IOENCODING", "PYCACHEPREFIX"),
    *("UNBUFFERED", "UTF8"),
}
# Other environments, further modules for IPython, setuptools, mypy and Jupyter, and what
# Matplotlib draws with, which a notebook would store.
OTHERS = {
    *("VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "SETUPTOOLS_USE_DISTUTILS", "DIST_EXTRA_CONFIG"),
    *("MYPYPATH", "JUPYTER_PATH", "JUPYTER_PREFER_ENV_PATH", "MPLBACKEND", "MATPLOTLIBRC"),
}


class ConfigurationError(Exception):
    """pip cannot read its own configuration, as one line."""


def is_inherited(name: str) -> bool:
    """Whether a variable of the environment is let through."""
    if name.startswith("PIP_"):
        return name[len("PIP_") :] in PIP
    if name.startswith("PYTHON") and name != "PYTHON":
        return name[len("PYTHON") :] in PYTHON
    return name not in OTHERS


def environment(environ: "Mapping[str, str]" = os.environ) -> "dict[str, str]":
    """Return the environment for a process, in which Python reads and writes UTF-8."""
    inherited = {name: text for name, text in environ.items() if is_inherited(name)}
    return {**inherited, "PYTHONUTF8": "1"}


def for_pip(python: str, command: str = "install") -> "dict[str, str]":
    """Return the environment for pip: what its configuration says goes through the same sieve.

    All that is let through stands in variables, and pip is told to read no file. Raises
    ``ConfigurationError`` when pip cannot read its files.
    """
    env = environment()
    listed = subprocess.run(
        [python, "-m", "pip", "config", "list"],
        capture_output=True,
        env=env,
        check=False,
    )
    if listed.returncode != 0:
        lines = listed.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise ConfigurationError(
            f"pip cannot read its configuration ({lines[-1].strip()}): mend the file, or set "
            f"PIP_CONFIG_FILE={os.devnull} to do without"
        )
    settings = configured(listed.stdout.decode("utf-8", "replace"), command)
    from_files = {name: text for name, text in settings.items() if is_inherited(name)}
    return {**from_files, **env, "PIP_CONFIG_FILE": os.devnull}


def configured(listing: str, command: str) -> "dict[str, str]":
    """Return what ``pip config list`` shows of files, by the names of pip's variables.

    A section for the command outweighs the one for all commands, as it does in pip.
    """
    settings = {}
    for section in ("global", command):
        for key, value in re.findall(rf"^{section}\.([\w-]+)=(.+)$", listing, re.MULTILINE):
            settings["PIP_" + key.upper().replace("-", "_")] = str(ast.literal_eval(value.strip()))
    return settings
