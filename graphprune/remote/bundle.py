"""The modules of the runner joined to one file."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files

#: Each after those that it imports.
MODULES = ("sessions", "meters", "timing", "tracing", "alone", "store", "serving")
_OWN_IMPORTS = re.compile(r"^from (__future__|graphprune\.runner\.\w+) import [^\n(]*\n", re.MULTILINE)
_START = """
if __name__ == "__main__":
    main(SCRIPT if "SCRIPT" in globals() else "")
"""


@lru_cache(maxsize=1)
def script() -> str:
    """The text of the file, which runs on python 3.8 without graphprune."""
    folder = files("graphprune.runner")
    parts = [(folder / f"{name}.py").read_text(encoding="utf-8") for name in MODULES]
    joined = "\n".join(_OWN_IMPORTS.sub("", part) for part in parts)
    return f"from __future__ import annotations\n{joined}{_START}"


#: For `python3 -c`: reads how long the runner is, then the runner, and starts it.
BOOTSTRAP = (
    'import sys;sys.version_info<(3,8)and sys.exit("graphprune: python "+sys.version.split()[0]);'
    "b=sys.stdin.buffer;s=b.read(int(b.readline())).decode();"
    'exec(compile(s,"graphprune-runner","exec"),{"__name__":"__main__","SCRIPT":s})'
)
