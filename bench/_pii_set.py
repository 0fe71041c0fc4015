"""A judged set for pgstack.detect_pii(): sentences with personal data, and with what only looks so.

Made from a seed, so that everybody gets the same.  :func:`sentences` gives both halves; a test and
bench/pii.py judge with :func:`score`.
"""

# ruff: noqa: RUF001
from __future__ import annotations

import hashlib
import ipaddress
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from bench import _pii_numbers as numbers

Maker = Callable[[random.Random], str]


@dataclass(frozen=True)
class Sentence:
    """A text, and what is in it: (type, value), in order.  ``kind`` names what it tries."""

    kind: str
    text: str
    holds: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Score:
    """How a type did: found rightly, found wrongly, missed."""

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """Return the share of what was found that is right; 1 when nothing was found."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        """Return the share of what is there that was found."""
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0


def score(
    sentences: Iterable[Sentence], found: Iterable[Iterable[tuple[str, str]]]
) -> dict[str, Score]:
    """Judge what was found in each sentence, type by type: type and value must be the same."""
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for sentence, hits in zip(sentences, found, strict=True):
        wanted, got = Counter(sentence.holds), Counter(hits)
        right.update(kind for kind, _ in (wanted & got).elements())
        wrong.update(kind for kind, _ in (got - wanted).elements())
        missed.update(kind for kind, _ in (wanted - got).elements())
    kinds = sorted({*right, *wrong, *missed})
    return {kind: Score(right[kind], wrong[kind], missed[kind]) for kind in kinds}


# ------------------------------------------------------------------ what is personal


def email(rng: random.Random) -> str:
    """Return an address: dots, plus, accents, Chinese; short and long domains."""
    return rng.choice(
        [
            f"{_name(rng)}.{_name(rng)}@{_name(rng)}.com",
            f"{_name(rng)}+{_name(rng)}@mail.{_name(rng)}.co.uk",
            f"{_name(rng)}_{rng.randint(1, 99)}@{_name(rng)}-{_name(rng)}.de",
            f"{_name(rng)[0]}.o'{_name(rng)}@{_name(rng)}.museum",
            f"{_name(rng).upper()}@{_name(rng).upper()}.ORG",
            f"jörg.{_name(rng)}@müller-{_name(rng)}.de",
            f"{_name(rng)}@xn--mller-kva.example",
            f"дмитрий@{_name(rng)}.рф",
            "用户@例子.公司",
        ]
    )


def international_phone(rng: random.Random) -> str:
    """Return a number with its country's code, grouped as people do."""
    d = numbers.digits
    return rng.choice(
        [
            f"+49 {rng.choice(['30', '89', '171', '40'])} {rng.randint(1, 9)}{d(rng, 6)}",
            f"+49 (0){rng.choice(['30', '89', '40'])} {rng.randint(1, 9)}{d(rng, 5)}-{d(rng, 2)}",
            f"+44 20 7{d(rng, 3)} {d(rng, 4)}",
            f"+44 (0)7{d(rng, 3)} {d(rng, 6)}",
            f"+33 {rng.randint(1, 9)} {' '.join(d(rng, 2) for _ in range(4))}",
            f"+1 {_area(rng)} {_area(rng)} {d(rng, 4)}",
            f"+1-{_area(rng)}-{_area(rng)}-{d(rng, 4)}",
            f"+1{_area(rng)}{_area(rng)}{d(rng, 4)}",
            f"+34 6{d(rng, 2)} {d(rng, 3)} {d(rng, 3)}",
            f"+86 138 {d(rng, 4)} {d(rng, 4)}",
            f"+91 98{d(rng, 3)} {d(rng, 5)}",
            f"+55 (11) 9{d(rng, 4)}-{d(rng, 4)}",
            f"+41.44.{d(rng, 3)}.{d(rng, 2)}.{d(rng, 2)}",
            f"0049 30 {rng.randint(1, 9)}{d(rng, 6)}",
            f"+353 1 {d(rng, 3)} {d(rng, 4)}",
        ]
    )


def _area(rng: random.Random) -> str:
    return f"{rng.randint(2, 9)}0{rng.randint(2, 9)}"


def plain_phone(rng: random.Random) -> str:
    """Return a number of one country whose form tells that it is one."""
    d = numbers.digits
    return rng.choice(
        [
            f"({_area(rng)}) {_area(rng)}-{d(rng, 4)}",
            f"{_area(rng)}-{_area(rng)}-{d(rng, 4)}",
            f"{_area(rng)}.{_area(rng)}.{d(rng, 4)}",
            f"01 {' '.join(d(rng, 2) for _ in range(4))}",
            f"020 7{d(rng, 3)} {d(rng, 4)}",
            f"07{d(rng, 3)} {d(rng, 6)}",
            f"030/{rng.randint(1, 9)}{d(rng, 6)}",
            f"0171 {rng.randint(1, 9)}{d(rng, 6)}",
            f"03-{d(rng, 4)}-{d(rng, 4)}",
            f"138-{d(rng, 4)}-{d(rng, 4)}",
        ]
    )


def worded_phone(rng: random.Random) -> str:
    """Return a number that only a word before it tells."""
    d = numbers.digits
    return rng.choice(
        [
            f"{_area(rng)}{_area(rng)}{d(rng, 4)}",
            f"9{d(rng, 2)} {d(rng, 3)} {d(rng, 3)}",
            f"06 {d(rng, 4)} {d(rng, 4)}",
            f"138{d(rng, 8)}",
            f"98{d(rng, 3)} {d(rng, 5)}",
            f"0123 / {rng.randint(1, 9)}{d(rng, 2)} {d(rng, 3)}",
            f"555-{d(rng, 4)}",
        ]
    )


def ip(rng: random.Random) -> str:
    """Return an address of a machine, of both versions, long and short."""
    low = rng.choice([10, 100, 172, 185, 192, 203, 8])
    version4 = f"{low}.{rng.randint(100, 255)}.{rng.randint(0, 255)}.{rng.randint(0, 255)}"
    whole = ipaddress.IPv6Address((0x20010DB8 << 96) + rng.getrandbits(rng.choice([8, 64, 96])))
    local = ipaddress.IPv6Address((0xFE80 << 112) + rng.getrandbits(64))
    return rng.choice(
        [
            version4,
            version4,
            str(whole),
            whole.exploded,
            str(whole).upper(),
            str(local),
            f"::ffff:{version4}",
            f"64:ff9b::{version4}",
        ]
    )


def mac(rng: random.Random) -> str:
    """Return a hardware address."""
    pairs = [f"{rng.randrange(1, 255):02x}" for _ in range(6)]
    return rng.choice([":".join(pairs), "-".join(pairs).upper()])


# What is said before a value, by language; types not named need no word.
_WORDS: dict[str, tuple[str, ...]] = {
    "worded_phone": (
        "phone: {}",
        "My mobile is {}",
        "Telefon {}",
        "Tel.: {}",
        "téléphone : {}",
        "teléfono: {}",
        "电话：{}",
        "手机号{}",
        "call me at {}",
        "Handy {}",
        "Fax {}",
    ),
    "national_id_us": ("SSN {}", "{}"),
    "national_id_de": ("Steuer-ID: {}", "Steueridentifikationsnummer {}", "Meine IdNr. ist {}"),
    "national_id_nl": ("BSN {}", "burgerservicenummer: {}"),
    "national_id_pl": ("PESEL: {}", "mój PESEL to {}"),
    "national_id_ca": ("SIN: {}", "my Social Insurance Number is {}"),
    "national_id_in": ("Aadhaar {}", "Aadhaar No.: {}"),
}

_SENTENCES = (
    "{}",
    "Please note {} and confirm by 2024-03-05.",
    "Hello, it is {}, thanks!",
    "Bitte beachten Sie: {}. Vielen Dank.",
    "Wir haben am 12.11.2023 um 14:30 Uhr {} erhalten.",
    "Bonjour, voici {} ; merci de répondre.",
    "Mi dato es {}, gracias por los 3 libros.",
    "你好，{}，谢谢。",
    "| row 7 | {} | 1 234,50 € |",
    '{{"id": 17, "value": "{}"}}',
    "<td>{}</td>",
    "A long story began in 1999 with 12 people; ({}) was written on the wall.\nNobody knew why.",
)


def personal(rng: random.Random, each: int) -> Iterator[Sentence]:
    """Yield ``each`` sentences a type, every one with one or two values."""
    makers: dict[str, Maker] = {
        "email": email,
        "phone": international_phone,
        "plain_phone": plain_phone,
        "worded_phone": worded_phone,
        "iban": numbers.iban,
        "credit_card": numbers.credit_card,
        "ip": ip,
        "mac": mac,
        **{f"national_id_{country}": make for country, make in numbers.NATIONAL.items()},
    }
    for kind, make in makers.items():
        named = kind.removeprefix("plain_").removeprefix("worded_")
        for _ in range(each):
            value = make(rng)
            text = rng.choice(_SENTENCES).format(
                rng.choice(_WORDS.get(kind, ("{}",))).format(value)
            )
            holds = [(named, value)]
            if rng.random() < 0.15:
                other = email(rng)
                text += f" E-mail {other}."
                holds.append(("email", other))
            yield Sentence(kind, text, tuple(holds))


# ------------------------------------------------------------------ what is not


def _broken(make: Maker, *, keep: int = 0) -> Maker:
    """Return a maker of numbers with one digit changed: their check digits do not fit."""

    def broken(rng: random.Random) -> str:
        value = make(rng)
        # With a digit at its end a Finnish number may be a right Swedish one.
        while make is numbers.id_fi and value[-1].isdigit():
            value = make(rng)
        places = [i for i, each in enumerate(value) if each.isdigit() and i >= keep]
        at = rng.choice(places)
        changed = value[:at] + str((int(value[at]) + rng.randint(1, 9)) % 10) + value[at + 1 :]
        # Brazil's check digits miss some changes, and a card of 19 digits may be one of 16.
        first = changed.replace(".", "")[:9]
        if (make is numbers.id_br and numbers.cpf(first) == changed) or len(value.split()) == 5:
            return broken(rng)
        return changed

    return broken


def _name(rng: random.Random) -> str:
    return "".join(
        rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(rng.randint(2, 3))
    )


def _isbn(rng: random.Random) -> str:
    number = "978" + numbers.digits(rng, 9)
    number += str(-sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(number)) % 10)
    spaced = f"{number[:3]}-{number[3]}-{number[4:8]}-{number[8:12]}-{number[12]}"
    return f"ISBN {rng.choice([number, spaced, spaced.replace('-', ' ')])}"


def _moment(rng: random.Random) -> datetime:
    return datetime(1990, 1, 1) + timedelta(seconds=rng.randrange(40 * 365 * 86400))


def _when(rng: random.Random) -> str:
    forms = [
        "%Y-%m-%d",
        "%d.%m.%Y",
        "%m/%d/%Y",
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y%m%d%H%M%S",
        "%d-%m-%Y %H:%M:%S",
        "%Y-%m-%d %H:%M:%S.%f",
        "%H:%M:%S",
        "%d.%m.%y",
        "%Y/%m/%d",
        "%Y.%m.%d",
    ]
    return _moment(rng).strftime(rng.choice(forms))


def _version(rng: random.Random) -> str:
    a, b, c, e = (rng.randint(0, 30) for _ in range(4))
    return rng.choice(
        [
            f"version {a}.{b}.{c}.{e}",
            f"v{a}.{b}.{c}",
            f"libfoo-{a}.{b}.{c}.{e}.tar.gz",
            f"{a}.{b}.{c}.{e}-1ubuntu2",
            f"release {a}.{b}.{c}.{e}",
            f"{a}.{b}.{c}.{e}.{a}",
            f"chapter {a}.{b}.{c}.{e}",
            f"{a}.{b}.{c}-rc.{e}",
        ]
    )


def _money(rng: random.Random) -> str:
    whole = rng.randint(1000, 10**9)
    american, german = f"{whole:,}", f"{whole:,}".replace(",", ".")
    return rng.choice(
        [
            f"${american}.99",
            f"{german},50 €",
            f"{american.replace(',', ' ')} Kč",
            f"EUR {german}",
            f"£{whole}",
            f"{whole}.00",
            f"+{german},00",
            f"−{american}",
            f"{american} + {whole:,} = {2 * whole:,}",
        ]
    )


def _thing(rng: random.Random) -> str:
    d, sha = numbers.digits, hashlib.sha256(str(rng.random()).encode()).hexdigest()
    made = uuid.UUID(int=rng.getrandbits(128), version=4)
    return rng.choice(
        [
            str(made),
            str(made).upper(),
            f"urn:uuid:{made}",
            f"commit {sha[:40]}",
            sha,
            sha[:7],
            f"sha256:{sha}",
            f"order no. {d(rng, 10)}",
            f"Order #{d(rng, 8)}",
            f"Bestellnummer {d(rng, 11)}",
            f"订单号{d(rng, 12)}",
            f"tracking number {d(rng, 12)}",
            f"invoice 2024-{d(rng, 6)}",
            f"ticket INC{d(rng, 7)}",
            f"doi:10.{d(rng, 4)}/j.cell.{rng.randint(2000, 2024)}.05.{d(rng, 3)}",
            f"CAS {d(rng, 4)}-{d(rng, 2)}-{d(rng, 1)}",
            f"IMG_{_moment(rng):%Y%m%d_%H%M%S}.jpg",
            f"scan-{d(rng, 9)}.pdf",
            f"https://example.org/item/{d(rng, 12)}",
            f"https://shop.example/p?id={d(rng, 16)}&n={d(rng, 4)}",
            f"EAN {d(rng, 13)}",
            f"PMID {d(rng, 8)}",
            f"part number {d(rng, 3)}-{d(rng, 4)}-{d(rng, 3)}",
            f"PD{d(rng, 7)}",
            f"SR{d(rng, 6)}A",
            f"CA{d(rng, 6)}b",
            f"timestamp {rng.randint(10**9, 2 * 10**9)}",
            f"{rng.randint(10**12, 2 * 10**12)} ms",
            f"0x{sha[:16]}",
        ]
    )


def _measure(rng: random.Random) -> str:
    f = rng.uniform
    row = "  ".join(str(rng.randint(0, 9999)) for _ in range(8))
    return rng.choice(
        [
            f"{f(-90, 90):.5f}, {f(-180, 180):.5f}",
            f"{f(0, 1):.12f}",
            f"{f(1, 9):.6e}",
            row,
            row.replace("  ", "\t"),
            row.replace("  ", " "),
            f"{rng.randint(1200, 1400)}–{rng.randint(1401, 1999)}",
            "pp. 1234-1256, vol. 123",
            f"{rng.randint(100, 999)} x {rng.randint(100, 999)} x {rng.randint(100, 999)} mm",
            "48° 51′ 24″ N 2° 21′ 03″ E",
            "π = 3.14159265358979",
            f"{f(0, 10):.2f} {f(0, 10):.2f} {f(0, 10):.2f}",
            "1000 2000 3000 4000 5000 6000",
            "ISO 8601, RFC 5322, IEEE 802.11, DIN 476",
            "2019-2020, 2021-2022",
        ]
    )


def _code(rng: random.Random) -> str:
    return rng.choice(
        [
            "@decorator",
            "user@host",
            "git@github.com:pgstack/pgstack.git",
            "icon@2x.png",
            "lodash@4.17.21",
            "@media print",
            "std::string::npos",
            "a::b",
            "select x::text from t",
            "Foo::Bar->new",
            "getty@tty1.service",
            "x @> y",
            "me @ home",
            "https://user:secret@db.example.org/x",
            "300.1.2.3",
            "256.256.256.256",
            "127.0.0.1",
            "0.0.0.0",
            "255.255.255.0",
            "1.2.3",
            "::1",
            "::",
            "12:34:56",
            "ff:ff:ff:ff:ff:ff",
            "@@",
            "a@b",
            "foo@.com",
            "foo@bar.",
            "@example.com",
            "1:2:3:4",
            "mov eax, 0xdeadbeef",
            "#123456",
            "rgb(12, 34, 56)",
            "192.168.1",
            "1.1.1.1.1.1",
            "x@y..z",
            "C++::dead::beef",
        ]
    )


def harmless(rng: random.Random, each: int) -> Iterator[Sentence]:
    """Yield ``each`` sentences a kind that hold nothing personal."""
    national = {
        f"broken national_id_{c}": _broken(make, keep=c in ("be", "se"))
        for c, make in numbers.NATIONAL.items()
        if c not in ("us", "gb", "kr")
    }
    broken: dict[str, Maker] = {
        "broken iban": _broken(numbers.iban),
        "broken credit_card": _broken(numbers.credit_card, keep=1),
        **national,
    }
    kinds: dict[str, Maker] = {
        "isbn": _isbn,
        "when": _when,
        "version": _version,
        "money": _money,
        "thing": _thing,
        "measure": _measure,
        "code": _code,
    }
    for kind, make in [*broken.items(), *kinds.items()]:
        words = _WORDS.get(kind.removeprefix("broken "), ("{}",))
        for _ in range(each if kind in broken else 3 * each):
            text = rng.choice(_SENTENCES).format(rng.choice(words).format(make(rng)))
            yield Sentence(kind, text, ())


def sentences(seed: int = 5, each: int = 100) -> list[Sentence]:
    """Return both halves, ``each`` sentences a kind, shuffled."""
    rng = random.Random(seed)
    made = [*personal(rng, each), *harmless(rng, each)]
    rng.shuffle(made)
    return made
