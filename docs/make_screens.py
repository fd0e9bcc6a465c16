"""Make the screenshots of TensorBoard in the docs: `python docs/make_screens.py`, two minutes.

It trains the runs of the TensorBoard tour, with its comparison, and needs Chromium on the PATH. A
folder may be given, in which the runs are kept.
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

from seqrl.scripts import compare, train

PICTURES = Path(__file__).resolve().parent / "pictures"
COMMON = "--env FrozenLake-v1 --steps 300000 --eval-every 15000 --eval-episodes 1000"
RUNS = {
    "FrozenLake-v1/q-learning": f"--agent q-learning {COMMON}",
    "FrozenLake-v1/sarsa": f"--agent sarsa {COMMON}",
}
COMPARISON = "--agents q-learning sarsa --env CliffWalking-v1 --max-episode-steps 200"
COMPARISON += " --seeds 10 --steps 100000 --eval-every 5000"
COMPARED = "runs/compare-CliffWalking-v1-q-learning+sarsa"
Q_LEARNING = "regexInput=FrozenLake.*q-learning"
SCREENS = {  # log folder: name: page of TensorBoard, width, height
    "runs": {
        "scalars": (
            "#scalars&regexInput=FrozenLake&tagFilter=eval%2F&_smoothingWeight=0",
            1080,
            760,
        ),
        "images": (f"#images&{Q_LEARNING}", 1080, 690),
        "dark": (f"?darkMode=true#images&{Q_LEARNING}", 1080, 480),
    },
    COMPARED: {
        "compared": ("#scalars&_smoothingWeight=0", 1300, 860),
        "intervals": ("#custom_scalars&_smoothingWeight=0", 1080, 480),
        "hparams": ("#hparams", 1300, 480),
    },
}


def main(argv: Sequence[str]) -> int:
    """Train and take the screenshots; finished runs in the folder argv[0] are not trained again."""
    with tempfile.TemporaryDirectory() as folder, chdir(argv[0] if argv else folder):
        for name, flags in RUNS.items():
            if not Path("runs", name, "seed-0", "summary.json").exists():
                train.main([*flags.split(), "--quiet"])
        compare.main([*COMPARISON.split(), "--quiet"])
        for logdir, screens in SCREENS.items():
            with tensorboard(logdir) as address:
                for name, (page, width, height) in screens.items():
                    path = PICTURES / f"tensorboard-{name}.png"
                    screenshot(address + page, path, width, height, Path(folder) / "profile")
    return 0


@contextmanager
def tensorboard(logdir: str) -> Iterator[str]:
    """Run TensorBoard on a free port; yield its address once it has read everything."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        address = f"http://localhost:{port}/"
        try:
            wait_for(address)
            time.sleep(30)  # it goes on reading after its first answer
            yield address
        finally:
            server.terminate()


def wait_for(address: str) -> None:
    """Wait until the address answers, a minute at most; then TimeoutError."""
    for _ in range(60):
        try:
            urllib.request.urlopen(address).close()
            return
        except OSError:
            time.sleep(1)
    raise TimeoutError(address)


def screenshot(address: str, path: Path, width: int, height: int, profile: Path) -> None:
    """Save a screenshot of a page as a PNG of 64 colours."""
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
