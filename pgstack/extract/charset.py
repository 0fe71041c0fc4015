"""Bytes of a text file to characters.

Data in and out
    ``data``      the file
    ``declared``  the charset it claims for itself (HTML's ``<meta>``, XML's first line), or None
    returns       the text, cleaned, and warnings for people

In this order: a byte order mark; the pattern of zeros of UTF-16 and UTF-32; what is declared,
if it fits; UTF-8, if it fits; ISO-2022-JP by its escapes; a guess.  The guess asks first whether
the text fits the alphabet of a language in Latin letters, which charset-normalizer confuses,
then charset-normalizer, then takes Windows-1252.  A guess carries a warning.

Raises
    Unreadable  the file is no text
"""

# ruff: noqa: RUF001 - letters that look like others are what this is about
from __future__ import annotations

import codecs
import contextlib
import re
import unicodedata
from collections import Counter

from pgstack.extract.compose import clean
from pgstack.extract.document import Unreadable

_BOMS = (  # UTF-32 first: its mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 65_536  # bytes that are looked at for a guess

# What browsers understand by a name, where Python is stricter.
_ALIASES = {
    **dict.fromkeys(("iso-8859-1", "latin-1", "latin1", "ascii", "us-ascii"), "cp1252"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis", "windows-31j"), "cp932"),
    **dict.fromkeys(("gb2312", "gbk", "x-gbk"), "gb18030"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987", "ksc5601"), "cp949"),
    **dict.fromkeys(("iso-8859-8-i", "iso-8859-8-e", "visual"), "iso8859_8"),
    "iso-8859-9": "cp1254",
}


def decode(data: bytes, declared: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Return the text of ``data``, cleaned, and what is doubtful about it."""
    warnings: list[str] = []
    text = _decode_marked(data, warnings)
    if text is None:
        text = _decode_wide(data)
    if text is None:
        _refuse_binary(data)
        text = _decode_unmarked(data, declared, warnings)
    if "\x00" in text:
        warnings.append("NUL characters were removed")
    return clean(text), tuple(warnings)


def _decode_marked(data: bytes, warnings: list[str]) -> str | None:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                warnings.append(f"not valid {encoding.upper()}: damaged characters were replaced")
                return data.decode(encoding, errors="replace")
    return None


def _decode_wide(data: bytes) -> str | None:
    """Return the text of UTF-16 or UTF-32 without a mark, or None."""
    head = data[:4096]
    size = len(head)
    if size % 2 or size < 4:
        return None
    nuls = [head[place::4].count(0) / (size / 4) for place in range(4)]
    guesses = []
    if size % 4 == 0 and min(nuls[2:]) > 0.9:
        guesses.append("utf-32-le")
    if size % 4 == 0 and min(nuls[:2]) > 0.9:
        guesses.append("utf-32-be")
    even, odd = (nuls[0] + nuls[2]) / 2, (nuls[1] + nuls[3]) / 2
    # Text in Latin letters has a zero in each; in others, in its spaces and line ends.
    if odd > 0.02 and even < odd / 4:
        guesses.append("utf-16-le")
    if even > 0.02 and odd < even / 4:
        guesses.append("utf-16-be")
    certain = len(guesses)
    # In Latin letters nearly all bytes are ASCII, in those two about half.
    if even + odd < 0.2 and sum(map(_plain, head)) < size * 0.7 and not _utf8(head):
        guesses += ["utf-16-le", "utf-16-be"]  # Chinese or Japanese, without a space
    for number, guess in enumerate(guesses):
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(guess)
            if _sensible(text, strict=number >= certain):
                return text
    return None


def _sensible(text: str, *, strict: bool) -> bool:
    """Say whether characters are those of a text; ``strict``: with East Asian marks."""
    sample = text[:2000]
    kinds = Counter(unicodedata.category(char) for char in sample if char not in "\t\n\r\f")
    odd = kinds["Cn"] + kinds["Co"] + kinds["Cc"] + kinds["Cs"]
    if odd > len(sample) // 50:
        return False
    return not strict or sum(map(sample.count, "。、，　：\n")) > len(sample) // 100


def _refuse_binary(data: bytes) -> None:
    head = data[:_SAMPLE]
    nuls = head.count(0)
    # One stray NUL is damage, many are another kind of file.
    if nuls and (nuls > len(head) // 1000 or (len(head) < 1000 and nuls > 1)):
        raise Unreadable("binary data, not text")
    odd = sum(head.count(code) for code in range(1, 32) if code not in (8, 9, 10, 12, 13, 27))
    if odd > len(head) // 20:
        raise Unreadable("binary data, not text")


def _decode_unmarked(data: bytes, declared: str | None, warnings: list[str]) -> str:
    if declared:
        # OSError: Python looks for a name it does not know among its files.
        with contextlib.suppress(UnicodeDecodeError, LookupError, OSError):
            return data.decode(_ALIASES.get(declared, declared))
    if re.search(rb"\x1b\$[@B]", data[:_SAMPLE]):
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("iso2022_jp_2")
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode("utf-8")
    # Damage in a file that is UTF-8 otherwise is no other charset.
    head = data[:_SAMPLE].decode("utf-8", errors="replace")
    wrong = head.count("\ufffd")
    if wrong * 10 < sum(not char.isascii() for char in head):
        warnings.append("not valid UTF-8: damaged characters were replaced")
        return data.decode("utf-8", errors="replace")
    sample = data[:_SAMPLE]
    guess = _latin(sample) or _script(sample) or _detected(sample) or "cp1252"
    try:
        text = data.decode(guess)
    except UnicodeDecodeError:
        guess = "latin-1" if guess == "cp1252" else guess
        text = data.decode(guess, errors="replace")
    warnings.append(f"not UTF-8; read as {guess}, which is a guess")
    return text


def _plain(byte: int) -> bool:
    return 32 <= byte < 127 or byte in (9, 10, 13)


def _utf8(data: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


# --- guesses --------------------------------------------------------------------------

# Letters beyond a to z, by language; charsets that have them, the likeliest first.
_WESTERN = ("cp1252", "latin-1")
_CENTRAL = ("cp1250", "iso8859_2")
_BALTIC = ("cp1257", "iso8859_13")
_ALPHABETS: tuple[tuple[tuple[str, ...], str], ...] = (
    (_WESTERN, "àâæçéèêëîïôœùûüÿ"),  # French
    (_WESTERN, "äöüß"),  # German
    (_WESTERN, "áéíñóúüªº"),  # Spanish
    (_WESTERN, "áâãàçéêíóôõúü"),  # Portuguese
    (_WESTERN, "àèéìíòóùú"),  # Italian
    (_WESTERN, "àçéèíïóòúü"),  # Catalan
    (_WESTERN, "éëïóöüèêá"),  # Dutch
    (_WESTERN, "åäöéü"),  # Swedish, Finnish
    (_WESTERN, "æøåéèòôü"),  # Danish, Norwegian
    (_WESTERN, "áðéíóúýþæö"),  # Icelandic
    (_CENTRAL, "ąćęłńóśźż"),  # Polish
    (_CENTRAL, "áčďéěíňóřšťúůýž"),  # Czech
    (_CENTRAL, "áäčďéíĺľňóôŕšťúýž"),  # Slovak
    (_CENTRAL, "áéíóöőúüű"),  # Hungarian
    (_CENTRAL, "čćđšž"),  # Croatian, Slovene
    (_CENTRAL, "ăâîşţ"),  # Romanian
    (_BALTIC, "ąčęėįšųūž"),  # Lithuanian
    (_BALTIC, "āčēģīķļņšūž"),  # Latvian
    (_BALTIC, "äõöüšž"),  # Estonian
    (("cp1254",), "çğıöşüâîûi\u0307"),  # Turkish; İ in small letters is two characters
)
_MARKS = "«»“”„‚‘’‹›–—…•·°§©®€£¿¡´×½¼²³\xa0\xad"


def _latin(sample: bytes) -> str | None:
    """Return the charset in which a sample fits a language written in Latin letters, or None."""
    high = sum(byte > 127 for byte in sample)
    letters = sum(chr(byte).isalpha() for byte in sample if byte < 128)
    if high > letters * 0.6 + 6:
        return None  # letters beyond a to z are few in all of them
    best, least = None, max(high * 0.15, 1.0) + 0.01
    for encoding in dict.fromkeys(name for names, _ in _ALPHABETS for name in names):
        try:
            found = Counter(char for char in sample.decode(encoding) if char > "\x7f")
        except UnicodeDecodeError:
            continue
        for names, alphabet in _ALPHABETS:
            misfits = _misfits(found, alphabet) if encoding in names else least
            if misfits < least:
                best, least = encoding, misfits
    return best


def _misfits(found: Counter[str], alphabet: str) -> float:
    known = set(alphabet) | set(alphabet.upper()) | set(_MARKS)
    return sum(count for char, count in found.items() if char not in known)


# The letters that make up most of a text, by script.
_SCRIPTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("cp1251", "koi8_r", "koi8_u", "iso8859_5", "cp866"), "оеаинтсрвлкмдпуяыьіъј"),
    (("cp1255", "iso8859_8"), "יוהלאתרמבשנכעםד"),
    (("cp1253", "iso8859_7"), "αοιετσνηυρπκμλωςάίόέή"),
    (("cp1256", "iso8859_6"), "اليمونتربةعدسفقهكح"),
)


def _script(sample: bytes) -> str | None:
    """Return the charset in which a sample's letters are as frequent as in its script, or None."""
    best, most = None, 0.65
    for encodings, frequent in _SCRIPTS:
        for encoding in encodings:
            try:
                letters = [char for char in sample.decode(encoding) if char > "\x7f"]
            except UnicodeDecodeError:
                continue
            # Capitals count half: charsets differ in which half of the table is which case.
            known = sum(char in frequent for char in letters)
            known += sum(char.isupper() and char.lower() in frequent for char in letters) // 2
            if known / max(len(letters), 1) > most:
                best, most = encoding, known / len(letters)
    return best


# charset-normalizer left to itself takes German for Johab and French for cp775.
_CANDIDATES = [
    *("cp1252", "cp1250", "cp1251", "koi8_r", "koi8_u", "iso8859_5", "cp866", "cp1253"),
    *("iso8859_7", "cp1254", "cp1255", "iso8859_8", "cp1256", "iso8859_6", "cp1257", "cp874"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949", "iso8859_2"),
]


def _detected(sample: bytes) -> str | None:
    import charset_normalizer

    # Whole lines: a character cut in two would speak against the right charset.
    whole = sample[: sample.rfind(b"\n") + 1] if len(sample) == _SAMPLE else sample
    best = charset_normalizer.from_bytes(whole or sample, cp_isolation=_CANDIDATES).best()
    return best.encoding if best is not None else None


# --- what a file says of itself -------------------------------------------------------

_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I)
_XML = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})["']""", re.I)


def declared(data: bytes) -> str | None:
    """Return the charset that an HTML page or XML file claims, in small letters, or None."""
    match = _XML.match(data[:1000]) or _META.search(data[:4096])
    return match.group(1).decode("ascii", errors="replace").lower() if match else None
