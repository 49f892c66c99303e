"""`make dist`: sdist, and the wheel built from it, checked; each is installed into an environment
of its own, which borrows only other packages from the one that runs this, and has to gate there."""

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
GATE = ("check", "tiny:base", "tiny:lora", "own/circuits/tiny-induction.circuit.yaml")


def run(*command: str | Path, folder: Path = ROOT) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}")


def main() -> None:
    for old in DIST.glob("forgetguard-*"):
        old.unlink()
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    files = sorted(DIST.glob("forgetguard-*"))
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    for file in files:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            venv.create(folder / "venv")
            python = folder / "venv" / "bin" / "python"
            own = folder.glob("venv/lib/python*/site-packages")
            # Path files of that folder are not read: an editable install of ours is not seen.
            next(own).joinpath("others.pth").write_text(sysconfig.get_path("purelib"))
            run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", file)
            command = folder / "venv" / "bin" / "forgetguard"
            run(command, "init", "own", "base=tiny:base", folder=folder)
            run(command, *GATE, folder=folder)
        print(f"{file.relative_to(ROOT)}: metadata and a gate after installing it are right")


main()
