"""Photograph TensorBoard for README and docs: `python docs/make_screens.py`, two minutes.

It trains the runs of the TensorBoard tour and takes the pages with Chromium, which must be on the
PATH. With a folder named, the runs are kept there.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path

from PIL import Image

from seqrl.scripts import train

PICTURES = Path(__file__).resolve().parent / "pictures"
LAKE = "--env FrozenLake-v1 --steps 300000 --eval-every 15000 --eval-episodes 1000"
RUNS = {
    "FrozenLake-v1/q-learning": f"--agent q-learning {LAKE}",
    "FrozenLake-v1/sarsa": f"--agent sarsa {LAKE}",
}
LEARNER = "regexInput=FrozenLake.*q-learning"
SCREENS = {  # name -> page of TensorBoard, width, height
    "scalars": ("#scalars&regexInput=FrozenLake&tagFilter=eval%2F&_smoothingWeight=0", 1080, 760),
    "images": (f"#images&{LEARNER}", 1080, 690),
    "dark": (f"?darkMode=true#images&{LEARNER}", 1080, 480),
    "hparams": ("#hparams", 1300, 480),
}


def main(argv: Sequence[str]) -> int:
    """Train, look, keep the pictures; runs that are in the folder argv[0] are not trained again."""
    with tempfile.TemporaryDirectory() as place, chdir(argv[0] if argv else place):
        for name, line in RUNS.items():
            if not Path("runs", name, "seed-0", "summary.json").exists():
                train.main([*line.split(), "--quiet"])
        with tensorboard() as address:
            for name, (page, width, height) in SCREENS.items():
                path = PICTURES / f"tensorboard-{name}.png"
                take(address + page, path, width, height, Path(place) / "profile")
    return 0


@contextmanager
def tensorboard() -> Iterator[str]:
    """TensorBoard over runs, on a free port: its address, once it has read everything."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", "runs", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        address = f"http://localhost:{port}/"
        try:
            wait_for(address)
            time.sleep(10)  # it reads on after it answers
            yield address
        finally:
            server.terminate()


def wait_for(address: str) -> None:
    """Until somebody answers there."""
    for _ in range(60):
        try:
            urllib.request.urlopen(address).close()
            return
        except OSError:
            time.sleep(1)
    raise TimeoutError(address)


def take(address: str, path: Path, width: int, height: int, profile: Path) -> None:
    """A page as a PNG of 64 colours."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no chromium on the PATH")
    command = [browser, "--headless=new", "--disable-gpu", "--hide-scrollbars"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    command += [f"--window-size={width},{height}", "--virtual-time-budget=30000"]
    command += [f"--user-data-dir={profile}", f"--screenshot={path}", address]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=120)
    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
