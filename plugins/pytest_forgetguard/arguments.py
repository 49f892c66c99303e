"""Rewrites `--forgetguard base=X tuned=Y` into tokens that argparse reads one by one."""

from __future__ import annotations

import re

FLAG = "--forgetguard"
_PAIR = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*=")


def rewrite(args: list[str]) -> None:
    """Replace, in place, the flag and the KEY=VALUE tokens right after it by one
    `--forgetguard=KEY=VALUE` each; a flag without any becomes `--forgetguard=`.

    `nargs="+"` would swallow the test paths that follow; this takes only what looks like a pair.
    Rewriting twice changes nothing more.
    """
    out: list[str] = []
    at = 0
    while at < len(args) and args[at] != "--":
        token = args[at]
        at += 1
        if token != FLAG and not token.startswith(f"{FLAG}="):
            out.append(token)
            continue
        pairs = [] if token == FLAG else [token.removeprefix(f"{FLAG}=")]
        while at < len(args) and _PAIR.match(args[at]):
            pairs.append(args[at])
            at += 1
        out += [f"{FLAG}={pair}" for pair in pairs or [""]]
    args[:] = out + args[at:]
