"""The application's background jobs: a thumbnail for each photograph, and a mail that announces it."""

import os
import smtplib
from email.message import EmailMessage
from pathlib import Path

from models import Photo
from PIL import Image
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from sapwood import Job, Sapwood

DATABASE_URL = os.environ.get("DATABASE_URL", "sqlite:///demo-output/shop.db")

engine = create_engine(DATABASE_URL)
app = Sapwood(engine, queues=["media", "email"], imports=["jobs"])


class MakeThumbnail(Job, queue="media", priority=20, max_attempts=3):
    def perform(self, photo_id: int, *, width: int = 128) -> None:
        with Session(engine) as session, session.begin():
            photo = session.get_one(Photo, photo_id)
            target = Path(photo.path).with_name("thumbnails") / f"{photo.name}.jpg"
            target.parent.mkdir(exist_ok=True)
            with Image.open(photo.path) as picture:
                picture.thumbnail((width, width))
                picture.convert("RGB").save(target)
            photo.thumbnail = str(target)

    def backoff(self, attempt: int) -> float:
        return 0.3 * attempt  # a demonstration is impatient; the default is attempt ** 4 seconds


class Announce(Job, queue="email", max_attempts=5):
    def perform(self, photo_id: int, to: str) -> None:
        with Session(engine) as session:
            photo = session.get_one(Photo, photo_id)
            mail = EmailMessage()
            mail["From"], mail["To"] = "photos@example.org", to
            mail["Subject"] = f"New photograph: {photo.name}"
        with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"]), timeout=10) as smtp:
            smtp.send_message(mail)

    def backoff(self, attempt: int) -> float:
        return 0.5 * attempt
