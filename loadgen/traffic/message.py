"""What is sent: seeded, reproducible messages, each of them unique.

Message number k of a profile is a function of the profile's seed and k alone:
its size, structure, words, addresses and attachment. Only its id (with the
run in it) and its Date differ from run to run. All that a seed decides is
rendered once and comes again after some thousand messages, and bodies are
shared, since building MIME for every message would cost more than sending it;
what is written for each message, and makes it unique, are the lines with its id.
"""

import random
import time
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from itertools import accumulate
from typing import NamedTuple

from loadgen.profile import Message, Others

__all__ = ["FIRST_OF_WORKER", "ID_DOMAIN", "ID_HEADER", "MessageFactory", "OutgoingMessage"]

ID_HEADER = "X-Loadgen-ID"
FIRST_OF_WORKER = 1_000_000_000
"""A worker numbers its messages from this many times its index."""
ID_DOMAIN = "loadgen.invalid"
"""Right-hand side of Message-ID; the left-hand side is the id."""

_VARIANTS_SMALL, _VARIANTS_LARGE, _LARGE_BYTES = 48, 4, 64 * 1024
_CYCLE = 2048
"""Messages whose sizes, addresses and subjects are drawn one by one; then they come again with other ids."""
_PEOPLE = 400
_LINE = 72
_OWN_BYTES = 37 + 44 + 31
"""Date, Message-ID and id of a message with a number of four digits."""

_WORDS = (
    "account agenda agree already answer april archive arrive ask attached august autumn available back balance "
    "because before begin below between board book both bring budget build bus call cancel careful case change "
    "check choose city clear client close coffee collect colour come confirm contract copy cost could country "
    "customer daily date deadline december deliver department detail different discuss document door draft early "
    "east either email end enough enter estimate evening event every example expect extra february few figure "
    "file final find first floor follow forward friday from garden general give good ground group half hand "
    "happen harbour help here holiday hotel hour house however idea important include inside instead invoice "
    "january join july june just keep kind kitchen know large last later lead leave letter library light like "
    "list little local long look lunch machine main make many march market material may meet meeting member "
    "message minute monday month more morning most move much museum name near need never new next night north "
    "note november number october offer office often old only open order other our outside over page paper part "
    "people person phone picture place plan please point position possible price print problem project proposal "
    "quarter question quick quiet rather read ready reason receive record regards region remain reply report "
    "request result return review right river road room same saturday schedule school season second section "
    "send september serve several share short should show side signature since site slow small south space "
    "start station stay still street subject summer sunday supplier support system table take team thank that "
    "their these thing think thursday ticket time today together tomorrow total town train travel tuesday turn "
    "under until update usual valley very visit wait want water weather wednesday week welcome west what when "
    "where which while white whole window winter with without work would write year yellow yesterday your"
).split()


class OutgoingMessage(NamedTuple):
    """One message, ready for the wire: CRLF line ends, dots stuffed, without the final dot."""

    id: str
    sender: str
    recipients: tuple[str, ...]
    head: bytes
    """Header fields of this message alone."""
    body: bytes
    """The rest, shared by several messages: structure fields, empty line, content."""
    size_bytes: int
    """Length as SMTP's SIZE counts it, before dots are stuffed."""


class _Design(NamedTuple):
    """What the seed decides about a message."""

    sender: str
    recipients: tuple[str, ...]
    fields: bytes
    """Header fields that do not depend on the run."""
    body: bytes
    stuffing: int
    """Bytes that the stuffing of dots has added to the body."""


class MessageFactory:
    """Makes message number k of a profile."""

    def __init__(self, message: Message, seed: int, run_id: str) -> None:
        """Prepare for one run; *run_id* (hex) keeps its ids apart from those of any other run."""
        self._message = message
        self._seed = seed
        self.run_id = run_id
        sizes, shares = zip(*message.size_shares, strict=True)
        self._sizes: tuple[int, ...] = sizes
        self._cumulative = list(accumulate(shares))
        self._bodies: dict[tuple[int, str, int], tuple[bytes, int]] = {}
        self._designs: dict[int, _Design] = {}
        # few people get much mail and many get little (recipients are Zipf-like)
        self._popularity = list(accumulate(1 / rank for rank in range(1, _PEOPLE + 1)))
        self._people = range(1, _PEOPLE + 1)
        self._date = ""
        self._date_until_s = 0.0

    def prepare(self) -> None:
        """Render all that can be rendered ahead; without this call it is done as messages are made."""
        for place in range(_CYCLE):
            if place not in self._designs:
                self._designs[place] = self._draw(place)

    def make_message(self, number: int) -> OutgoingMessage:
        """Return message *number* (from 0)."""
        place = number % _CYCLE
        design = self._designs.get(place)
        if design is None:
            design = self._designs[place] = self._draw(place)
        now_s = time.time()
        if now_s >= self._date_until_s:
            self._date, self._date_until_s = formatdate(now_s), int(now_s) + 1
        message_id = f"{self.run_id}.{number}"
        own = f"Date: {self._date}\r\nMessage-ID: <{message_id}@{ID_DOMAIN}>\r\n{ID_HEADER}: {message_id}\r\n"
        sender, recipients, fields, body, stuffing = design
        head = fields + own.encode("ascii")
        return OutgoingMessage(message_id, sender, recipients, head, body, len(head) + len(body) - stuffing)

    def _draw(self, place: int) -> _Design:
        rng = random.Random(f"{self._seed}:{place}")
        size = rng.choices(self._sizes, cum_weights=self._cumulative)[0]
        chance = rng.random()
        if chance < self._message.attachments:
            kind = "attachment"
        elif rng.random() < self._message.html:
            kind = "html"
        else:
            kind = "text"
        variant = rng.randrange(_VARIANTS_SMALL if size <= _LARGE_BYTES else _VARIANTS_LARGE)
        sender_number = rng.choices(self._people, cum_weights=self._popularity)[0]
        others = self._find_others(place)
        sender_domain = others.sender_domain if others is not None else None
        sender = f"person{sender_number}@{sender_domain or self._message.sender_domain}"
        recipients = self._pick_recipients(rng, others.recipient_domain if others is not None else None)
        subject = " ".join(rng.choices(_WORDS, k=rng.randint(2, 6))).capitalize()
        if others is not None and others.subject is not None:
            subject = others.subject
        fields = (
            f"From: {_name(sender_number)} <{sender}>\r\nTo: {', '.join(recipients[:20])}\r\nSubject: {subject}\r\n"
        ).encode("ascii")
        body, stuffing = self._find_body(size - len(fields) - _OWN_BYTES, kind, variant)
        return _Design(sender, recipients, fields, body, stuffing)

    def _find_others(self, place: int) -> Others | None:
        """Return in what this message differs from most; drawn apart, so that nothing else of it depends on that."""
        others = self._message.others
        if others is None or random.Random(f"{self._seed}:{place}:others").random() >= others.share:
            return None
        return others

    def _pick_recipients(self, rng: random.Random, domain: str | None) -> tuple[str, ...]:
        count = self._message.recipients
        if count == 1:
            people = rng.choices(self._people, cum_weights=self._popularity)
        else:
            people = rng.sample(range(1, max(_PEOPLE, 2 * count) + 1), count)
        return tuple(f"person{n}@{domain or self._message.recipient_domain}" for n in people)

    def _find_body(self, size: int, kind: str, variant: int) -> tuple[bytes, int]:
        """Return the stuffed body of about *size* bytes and how many bytes the stuffing added."""
        # heads differ by a few dozen bytes: one pool entry serves all sizes within 64 bytes
        rounded = max(64, size - size % 64)
        key = (rounded, kind, variant)
        if key not in self._bodies:
            raw = _build_body(random.Random(f"{self._seed}:{rounded}:{kind}:{variant}"), rounded, kind)
            stuffed = raw.replace(b"\r\n.", b"\r\n..")
            self._bodies[key] = (stuffed, len(stuffed) - len(raw))
        return self._bodies[key]


def _name(number: int) -> str:
    return f"{_WORDS[number % len(_WORDS)].capitalize()} {_WORDS[number * 7 % len(_WORDS)].capitalize()}"


def _build_body(rng: random.Random, size: int, kind: str) -> bytes:
    """Return structure fields and content of *size* bytes (a little more where MIME alone needs it)."""
    share = {"text": 1.0, "html": 0.35, "attachment": 0.08}[kind]
    text = _text(rng, max(80, int(size * share)))
    html_paragraphs = [_text(rng, 300) for _ in range(max(1, int(size * 0.45) // 340))]
    # base64 turns 57 bytes into a line of 78; the head of the part takes about 300 bytes
    payload = _payload(rng, max(16, int((size * 0.92 - 500) * 57 / 78)))
    raw = _render(kind, text, html_paragraphs, payload)
    missing = size - len(raw)
    if missing > 2:
        text += _text(rng, missing)
    elif missing < 0:
        text = text[: max(20, len(text) + missing)].rsplit("\r\n", 1)[0]
    return _render(kind, text, html_paragraphs, payload)


def _render(kind: str, text: str, html_paragraphs: list[str], payload: bytes) -> bytes:
    message = EmailMessage(policy=SMTP)
    message.set_content(text.replace("\r\n", "\n"), cte="7bit")
    if kind == "html":
        paragraphs = "".join(
            f"<p>{p.strip()} <a href='https://www.example.com/{n}'>more</a></p>\n"
            for n, p in enumerate(html_paragraphs)
        )
        html = f"<html><body><h1>News</h1>\n{paragraphs}</body></html>\n".replace("\r\n", "\n")
        message.add_alternative(html, subtype="html", cte="7bit")
        message.set_boundary("=-loadgen-alternative")
    elif kind == "attachment":
        message.add_attachment(payload, maintype="application", subtype="octet-stream", filename="figures.dat")
        message.set_boundary("=-loadgen-mixed")
    return message.as_bytes()


def _text(rng: random.Random, size: int) -> str:
    """Return lines of words, *size* characters in all, each line ended by CRLF."""
    words = rng.choices(_WORDS, k=size // 4 + 8)
    lines: list[str] = []
    line = ""
    total = 0
    for word in words:
        if len(line) + len(word) + 1 > _LINE:
            lines.append(line)
            total += len(line) + 2
            line = ""
            if total >= size:
                break
        line = f"{line} {word}" if line else word.capitalize()
    text = "\r\n".join([*lines, line])[: max(1, size - 2)].rstrip()
    return text + "x" * max(0, size - 2 - len(text)) + "\r\n"


def _payload(rng: random.Random, size: int) -> bytes:
    """Return bytes that compress about as well as office documents: half noise, half repetition."""
    block = rng.randbytes(512) + b"loadgen " * 64
    return (block * (size // len(block) + 1))[:size]
