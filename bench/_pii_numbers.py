"""Numbers of persons, made at random, right by their country's rules, written in several ways.

Written apart from sql/: what both agree on is not one mistake made twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, timedelta

# Account numbers as the registry of IBANs has them: n digits, a capitals, c either.
_IBANS = {
    "DE": "18n",
    "GB": "4a14n",
    "FR": "10n11c2n",
    "ES": "20n",
    "IT": "1a10n12c",
    "NL": "4a10n",
    "AT": "16n",
    "CH": "5n12c",
    "BE": "12n",
    "PL": "24n",
    "SE": "20n",
    "NO": "11n",
    "PT": "21n",
    "MT": "4a5n18c",
    "LC": "4a24c",
    "SA": "2n18c",
    "BR": "23n1a1c",
    "RU": "14n15c",
    "UA": "6n19c",
    "TR": "6n16c",
    "IE": "4a14n",
    "FI": "14n",
}
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def digits(rng: random.Random, count: int) -> str:
    """Return so many digits."""
    return "".join(rng.choices("0123456789", k=count))


def grouped(text: str, sizes: tuple[int, ...], separator: str) -> str:
    """Return the text in groups of these sizes."""
    parts, at = [], 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return separator.join(part for part in [*parts, text[at:]] if part)


def born(rng: random.Random, first: int = 1940, last: int = 2005) -> date:
    """Return a birthday."""
    start = date(first, 1, 1)
    return start + timedelta(days=rng.randrange((date(last, 12, 31) - start).days))


def iban(rng: random.Random) -> str:
    """An IBAN, together or in fours."""
    country = rng.choice(sorted(_IBANS))
    account, count = "", ""
    for letter in _IBANS[country]:
        if letter.isdigit():
            count += letter
        else:
            # Accounts that may have letters have few.
            alphabet = {"n": "0123456789", "a": CAPITALS, "c": "0123456789" * 12 + CAPITALS}[letter]
            account += "".join(rng.choices(alphabet, k=int(count)))
            count = ""
    rest = int("".join(str(int(each, 36)) for each in account + country + "00")) % 97
    whole = f"{country}{98 - rest:02d}{account}"
    return rng.choice([whole, grouped(whole, (4,) * 8, " "), grouped(whole, (4,) * 8, "\u00a0")])


def luhn_digit(number: str) -> str:
    """Return the digit that makes the number right."""
    doubled = [int(each) * (2 - i % 2) for i, each in enumerate(reversed(number))]
    return str(-sum(each - 9 * (each > 9) for each in doubled) % 10)


def credit_card(rng: random.Random) -> str:
    """The number of a card, of one of eight issuers."""
    prefix, length = rng.choice(
        [
            ("4", 16),
            ("51", 16),
            ("2221", 16),
            ("2720", 16),
            ("34", 15),
            ("37", 15),
            ("36", 14),
            ("6011", 16),
            ("3530", 16),
            ("62", 16),
            ("62", 19),
            ("6759", 16),
        ]
    )
    number = prefix + digits(rng, length - len(prefix) - 1)
    number += luhn_digit(number)
    sizes = {15: (4, 6, 5), 14: (4, 6, 4)}.get(length, (4, 4, 4, 4))
    return rng.choice([number, grouped(number, sizes, " "), grouped(number, sizes, "-")])


def id_us(rng: random.Random) -> str:
    area = rng.choice([*range(1, 666), *range(667, 900)])
    return f"{area:03d}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"


def id_gb(rng: random.Random) -> str:
    prefix = rng.choice(["AB", "CE", "HJ", "PW", "SY", "JG", "TR", "LA"])
    number = f"{prefix}{digits(rng, 6)}{rng.choice('ABCD')}"
    return grouped(number, (2, 2, 2, 2, 1), " ")


def id_de(rng: random.Random) -> str:
    while True:
        pool = rng.sample("0123456789", 9)
        first = [*pool, rng.choice(pool)]
        rng.shuffle(first)
        if first[0] != "0":
            break
    product = 10
    for each in first:
        product = ((int(each) + product) % 10 or 10) * 2 % 11
    number = "".join(first) + str((11 - product) % 10)
    return rng.choice([number, grouped(number, (2, 3, 3, 3), " ")])


def id_fr(rng: random.Random) -> str:
    day = born(rng)
    department = rng.choice([f"{n:02d}" for n in range(1, 96) if n != 20] + ["2A", "2B"])
    number = f"{rng.choice('12')}{day:%y%m}{department}{rng.randint(1, 900):03d}"
    number += f"{rng.randint(1, 900):03d}"
    key = 97 - int(number.replace("2A", "19").replace("2B", "18")) % 97
    return grouped(f"{number}{key:02d}", (1, 2, 2, 2, 3, 3, 2), " ")


def id_es(rng: random.Random) -> str:
    lead = rng.choice(["", "", "X", "Y", "Z"])
    number = digits(rng, 7 if lead else 8)
    letter = "TRWAGMYFPDXBNJZSQVHLCKE"[
        int({"X": "0", "Y": "1", "Z": "2", "": ""}[lead] + number) % 23
    ]
    return lead + number + rng.choice(["", "-"]) + letter


def id_it(rng: random.Random) -> str:
    odd = [
        1,
        0,
        5,
        7,
        9,
        13,
        15,
        17,
        19,
        21,
        2,
        4,
        18,
        20,
        11,
        3,
        6,
        8,
        12,
        14,
        16,
        10,
        22,
        25,
        24,
        23,
    ]
    day = born(rng)
    number = (
        "".join(rng.choices("BCDFGLMNPRSTVZ", k=6)) + f"{day:%y}{'ABCDEHLMPRST'[day.month - 1]}"
    )
    number += f"{day.day + rng.choice([0, 40]):02d}{rng.choice('ABCDFGHL')}{digits(rng, 3)}"
    total = 0
    for i, each in enumerate(number):
        rank = int(each) if each.isdigit() else ord(each) - 65
        total += rank if i % 2 else odd[rank]
    number += CAPITALS[total % 26]
    return rng.choice([number, number, number.lower()])


def id_nl(rng: random.Random) -> str:
    while True:
        number = digits(rng, 9)
        weights = (9, 8, 7, 6, 5, 4, 3, 2, -1)
        if (
            number[0] != "0"
            and sum(int(d) * w for d, w in zip(number, weights, strict=True)) % 11 == 0
        ):
            return number


# Of people born since 2000 a Swedish and a Finnish number may be the same, and a Belgian one
# may be right for one of two centuries: nobody could tell, so the set holds only older people's.
def id_be(rng: random.Random) -> str:
    day = born(rng, 1940, 1999)
    number = f"{day:%y%m%d}{rng.randint(1, 997):03d}"
    key = 97 - int(("2" if day.year >= 2000 else "") + number) % 97
    return f"{number[:2]}.{number[2:4]}.{number[4:6]}-{number[6:]}.{key:02d}"


def id_ch(rng: random.Random) -> str:
    number = "756" + digits(rng, 9)
    key = -sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(number)) % 10
    return grouped(f"{number}{key}", (3, 4, 4, 2), ".")


def id_pl(rng: random.Random) -> str:
    day = born(rng)
    number = f"{day:%y}{day.month + 20 * (day.year >= 2000):02d}{day:%d}{digits(rng, 4)}"
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)
    return number + str(-sum(int(d) * w for d, w in zip(number, weights, strict=True)) % 10)


def id_se(rng: random.Random) -> str:
    day = born(rng, 1940, 1999)
    number = f"{day:%y%m%d}{digits(rng, 3)}"
    number += luhn_digit(number)
    return rng.choice(["", f"{day:%Y}"[:2]]) + f"{number[:6]}-{number[6:]}"


def id_fi(rng: random.Random) -> str:
    day = born(rng)
    number = f"{day:%d%m%y}{rng.randint(2, 899):03d}"
    mark = "A" if day.year >= 2000 else "-"
    return f"{number[:6]}{mark}{number[6:]}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[int(number) % 31]}"


def id_br(rng: random.Random) -> str:
    return cpf(digits(rng, 9))


def cpf(number: str) -> str:
    """Return nine digits with their two check digits, as Brazilians write them."""
    for _ in range(2):
        total = sum(int(d) * w for d, w in zip(number, range(len(number) + 1, 1, -1), strict=True))
        number += str(total * 10 % 11 % 10)
    return f"{number[:3]}.{number[3:6]}.{number[6:9]}-{number[9:]}"


def id_ca(rng: random.Random) -> str:
    number = rng.choice("12345679") + digits(rng, 7)
    return grouped(number + luhn_digit(number), (3, 3, 3), rng.choice([" ", "-", ""]))


def id_cn(rng: random.Random) -> str:
    number = (
        rng.choice(["110105", "310101", "440106", "510104"]) + f"{born(rng):%Y%m%d}{digits(rng, 3)}"
    )
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return (
        number + "10X98765432"[sum(int(d) * w for d, w in zip(number, weights, strict=True)) % 11]
    )


def id_in(rng: random.Random) -> str:
    """Aadhaar: Verhoeff's check by the group itself, a pentagon's turns and reflections."""

    def times(a: int, b: int) -> int:
        turn = (a + b if a < 5 else a - b) % 5
        return turn + 5 * ((a >= 5) != (b >= 5))

    def permuted(digit: int, times_applied: int) -> int:
        for _ in range(times_applied % 8):
            digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
        return digit

    number = rng.choice("23456789") + digits(rng, 10)
    for last in "0123456789":
        check = 0
        for i, each in enumerate(reversed(number + last)):
            check = times(check, permuted(int(each), i))
        if check == 0:
            return grouped(number + last, (4, 4, 4), rng.choice([" ", ""]))
    raise AssertionError("one of ten digits fits")


def id_kr(rng: random.Random) -> str:
    day = born(rng)
    return f"{day:%y%m%d}-{rng.choice('34' if day.year >= 2000 else '12')}{digits(rng, 6)}"


NATIONAL: dict[str, Callable[[random.Random], str]] = {
    "us": id_us,
    "gb": id_gb,
    "de": id_de,
    "fr": id_fr,
    "es": id_es,
    "it": id_it,
    "nl": id_nl,
    "be": id_be,
    "ch": id_ch,
    "pl": id_pl,
    "se": id_se,
    "fi": id_fi,
    "br": id_br,
    "ca": id_ca,
    "cn": id_cn,
    "in": id_in,
    "kr": id_kr,
}
