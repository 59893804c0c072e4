#!/usr/bin/env python3
"""Are vulnerabilities known in the locked requirements?  Says so too where nobody could be asked.

    python .ci/audit.py requirements/lint.txt

pip-audit calls packages that its service does not answer about "skipped", and ends well.  Here the packages
that were looked up are counted.  Exit code 1: something is known of one of them; or, with AUDIT=required in
the environment, one of them was not looked up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

COMMAND = (
    "-m", "pip_audit", "--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off",
    "--timeout", "20", "--requirement",
)  # fmt: skip


def main(arguments: list[str]) -> int:
    """Audits one file of requirements."""
    done = subprocess.run(
        [sys.executable, *COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=600
    )
    try:
        found = list(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError, TypeError):
        words = done.stderr.strip().splitlines() or [f"pip-audit ended with status {done.returncode}"]
        found, reason = [], words[-1]
    else:
        reason = next((str(entry["skip_reason"]) for entry in found if "skip_reason" in entry), "")
    code, text = verdict(found, reason, required=os.environ.get("AUDIT") == "required")
    print(text)
    return code


def verdict(found: list[dict[str, Any]], reason: str, *, required: bool) -> tuple[int, str]:
    """Exit code and what is said.

    Args:
        found: one entry per package, as pip-audit gives them.
        reason: why some were not looked up.
        required: must all of them be?
    """
    asked = [entry for entry in found if "skip_reason" not in entry]
    lines = [
        f"vulnerable: {entry['name']} {entry['version']}: {flaw['id']}, fixed in "
        f"{', '.join(flaw['fix_versions']) or 'no version'}"
        for entry in asked
        for flaw in entry.get("vulns", ())
    ]
    code = 1 if lines else 0
    if not asked:
        lines.append(f"audit: NOT DONE, the advisory service did not answer about any package ({reason})")
    elif len(asked) < len(found):
        lines.append(f"audit: {len(asked)} packages looked up, {len(found) - len(asked)} NOT ({reason})")
    else:
        lines.append(f"audit: {len(asked)} packages looked up")
    if required and (not asked or len(asked) < len(found)):
        code = 1
    return code, "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
