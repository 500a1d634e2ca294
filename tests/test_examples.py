"""The examples run as they stand, on every database by its URL alone."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

EXAMPLES = Path(__file__).parent.parent / "examples"
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}


@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="scikit-image, which ships photographs")
@pytest.mark.parametrize("kind", DRIVERS)
def test_the_thumbnails_are_made_and_announced(kind, database_url, tmp_path):
    url = make_url(database_url(kind)).set(drivername=DRIVERS[kind])
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "thumbnails" / "demo.py"],
        cwd=tmp_path,
        env=os.environ | {"DATABASE_URL": url.render_as_string(hide_password=False)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert "the rolled-back upload left 0" in said
    assert "1 failed for good" in said
    assert "image file is truncated" in said
    assert "busy@example.org refused 2 times, then accepted" in said
    pictures = list((tmp_path / "demo-output" / "photos" / "thumbnails").glob("*.jpg"))
    assert len(pictures) == said.count("✓ MakeThumbnail") == 6
