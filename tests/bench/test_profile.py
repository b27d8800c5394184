"""A flame graph shows where a process spends its time, and what is wrong when it cannot be drawn."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.profile import Refused, record

_BUSY = "def busy():\n    while True: sum(range(1000))\nprint(flush=True)\nbusy()"


def test_the_picture_of_a_busy_process_names_the_function_that_is_busy(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _BUSY], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            (picture,) = record({"busy": process.pid}, 1, tmp_path)
        except Refused as error:
            pytest.skip(str(error))
        finally:
            process.kill()

    assert any("busy" in (title.text or "") for title in ET.parse(picture).iter("{http://www.w3.org/2000/svg}title"))


def test_a_process_that_cannot_be_looked_into_is_named_with_what_to_do(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()

    with pytest.raises(Refused, match=r"py-spy could not look into the ended: .*\n.*SYS_PTRACE"):
        record({"ended": process.pid}, 1, tmp_path)
