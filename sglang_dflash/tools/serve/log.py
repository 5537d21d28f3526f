"""Reads a server's log while it grows: how far the start is, and whether it failed."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# In the order in which a starting server writes them.
PHASES = (
    ("server_args=", "starting the scheduler"),
    ("Init parallel begin", "preparing the device"),
    ("Load weight begin", "loading weights"),
    ("KV Cache is allocated", "allocating the KV cache"),
    ("Application startup complete", "opening the port"),
)
_OURS = re.compile(r"(?:^|[\s:])error: .+")
_TAKEN = re.compile(r"error while attempting to bind on address .*")
_CRASH = re.compile(rf"hit an exception|Received sigquit from a child process|{_TAKEN.pattern}")
_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)\b.*")


@contextmanager
def log_folder() -> Iterator[Path]:
    """A new folder for logs, removed at the end unless an error makes them worth reading."""
    folder = Path(tempfile.mkdtemp(prefix="sglang-dflash-"))
    try:
        yield folder
    except Exception:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a file, or nothing where there is none."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def error_line(text: str) -> str | None:
    """The one line that says why a server died: ours, a taken port, else the last exception's, else None."""
    lines = text.splitlines()
    for pattern in (_OURS, _TAKEN):
        for line in lines:
            found = pattern.search(line)
            if found:
                return found.group(0).strip(" :")
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    return exceptions[-1].strip() if exceptions else None


class LogWatch:
    """Incremental reader of one growing log file."""

    def __init__(self, path: Path):
        self.path = path
        self.text = ""
        self._offset = 0

    def update(self) -> None:
        """Read what was appended since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        self.text += data.decode(errors="replace")

    def phase(self) -> tuple[int, str]:
        """How many phases have begun, and the name of the last."""
        reached, name = 0, "importing"
        for number, (marker, label) in enumerate(PHASES, start=1):
            if marker in self.text:
                reached, name = number, label
        return reached, name

    def crashed(self) -> bool:
        """True once a process of the server has reported its own end."""
        return _CRASH.search(self.text) is not None
