"""Makes what docs/training.md shows, from a real run: `python docs/training.py`.

Needs `pip install -e '.[examples,train]'`.  `--pictures` makes pictures of the report as well, by
the browser that `pip install PyQt6-WebEngine` brings.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

import mlgpu
from mlgpu.train import Callback, Dashboard, PlainLog, Trainer

DOCS = Path(__file__).parent
FOLDER = DOCS / "training"
sys.path.insert(0, str(DOCS.parent / "examples"))

import train_digits  # noqa: E402  found by the line above

EPOCHS = 20
SHOWN_AT = 350  # the step at which the dashboard's picture is taken


class Picture(Callback):
    """Keeps what the dashboard shows at one step."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.dashboard, self.svg = dashboard, ""

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.progress.step == SHOWN_AT:
            console = Console(record=True, width=104, file=io.StringIO())
            console.print(self.dashboard)
            svg = console.export_svg(title="python examples/train_digits.py")
            # Without the fonts that it would load from elsewhere.
            self.svg = re.sub(r"@font-face \{.*?\}\n|<!--.*?-->", "", svg, flags=re.DOTALL)


def captured() -> None:
    """Train once, and keep the dashboard, the plain log and the report."""
    dashboard = Dashboard(Console(file=io.StringIO(), width=104, height=60, force_terminal=True))
    log, picture = io.StringIO(), Picture(dashboard)
    with tempfile.TemporaryDirectory() as folder:
        run = train_digits.train(
            0, train_digits.read_digits(mlgpu.device("cpu")), epochs=EPOCHS, out=Path(folder),
            display="none", callbacks=[dashboard, picture, PlainLog(interval=5, file=log)])
        run.report(FOLDER / "report.html")
    (FOLDER / "dashboard.svg").write_text(picture.svg, encoding="utf-8")
    lines = log.getvalue().splitlines()
    guide = DOCS / "training.md"
    text = guide.read_text(encoding="utf-8")
    shown = "\n".join([*lines[:8], "...", *lines[-3:]])
    text = re.sub(r"(<!-- plain log -->\n```console\n).*?(```)",
                  lambda found: f"{found[1]}{shown}\n{found[2]}", text, flags=re.DOTALL)
    guide.write_text(text, encoding="utf-8")


BROWSER = """
import sys
from PyQt6.QtCore import QTimer, QUrl
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

app = QApplication(sys.argv[:1])
view = QWebEngineView()
view.resize(1120, 1180)
view.settings().setAttribute(view.settings().WebAttribute.ShowScrollBars, False)
view.loadFinished.connect(lambda _: QTimer.singleShot(
    1000, lambda: (view.grab().save(sys.argv[2]), app.quit())))
view.load(QUrl.fromLocalFile(sys.argv[1]))
view.show()
app.exec()
"""


def pictures(python: str) -> None:
    """The report as a browser shows it, in light and dark."""
    for theme, number in (("light", 1), ("dark", 0)):
        flags = f"--no-sandbox --disable-gpu --blink-settings=preferredColorScheme={number}"
        subprocess.run([python, "-c", BROWSER, str(FOLDER / "report.html"),
                        str(FOLDER / f"report-{theme}.png")], check=True, timeout=120,
                       env={**os.environ, "QT_QPA_PLATFORM": "offscreen",
                            "QTWEBENGINE_CHROMIUM_FLAGS": flags})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", metavar="PYTHON", nargs="?", const=sys.executable,
                        help="pictures of the report, by a Python that has PyQt6-WebEngine")
    args = parser.parse_args()
    captured()
    if args.pictures:
        pictures(args.pictures)


if __name__ == "__main__":
    main()
