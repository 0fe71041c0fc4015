"""HTML pages and feeds: what is left out, what is a heading, where it stands."""

from __future__ import annotations

import pytest

from pgstack.extract import Document, Options
from pgstack.extract.read import read_bytes

BODY = "This is what the page is about, in more words than a menu has. " * 8


def read(page: str, *, name: str = "a.html", keep: bool = False) -> Document:
    return read_bytes(page.encode(), name=name, options=Options(keep_boilerplate=keep))


MENUS = [
    "<nav>MENU</nav>",
    "<footer>MENU</footer>",
    "<header><a href=/>MENU</a></header>",
    "<aside>MENU</aside>",
    "<div role=navigation>MENU</div>",
    "<div role=banner>MENU</div>",
    '<div class="cookie-banner">MENU</div>',
    '<ul class="menu">MENU</ul>',
    '<div id="sidebar">MENU</div>',
    '<table class="navheader"><tr><td>MENU</td></tr></table>',
]


@pytest.mark.parametrize("menu", MENUS)
def test_menus_are_left_out_unless_asked(menu: str) -> None:
    page = f"<body>{menu}<h1>Title</h1><p>{BODY}</p>{menu}</body>"
    assert read(page).text == f"Title\n\n{BODY.strip()}"
    assert "MENU" in read(page, keep=True).text


@pytest.mark.parametrize(
    "part",
    [
        '<h2 class="anchorWithStickyNavbar">KEPT</h2>',
        '<p id="SQL-FOR-UPDATE-SHARE">KEPT</p>',
        "<article><header><h1>KEPT</h1></header></article>",
        "<blockquote>Words<footer>KEPT</footer></blockquote>",
        "<article><aside>KEPT</aside></article>",
        '<div class="page-with-sidebar">KEPT</div>',
    ],
)
def test_what_only_looks_like_a_menu_is_kept(part: str) -> None:
    assert "KEPT" in read(f"<body><p>{BODY}</p>{part}</body>").text


def test_what_holds_most_of_the_page_is_no_menu() -> None:
    assert BODY.strip() in read(f'<body><div class="menu"><p>{BODY}</p></div></body>').text


def test_where_hardly_anything_would_be_left_all_is_kept() -> None:
    page = f"<body><nav>{BODY}</nav><p>short</p></body>"
    assert read(page).text == f"{BODY.strip()}\n\nshort"


def test_main_is_the_page() -> None:
    page = f"<body><div>before</div><main><p>{BODY}</p></main><div>after</div></body>"
    assert read(page).text == BODY.strip()


def test_what_is_not_shown_is_no_text() -> None:
    page = (
        "<p>shown</p><p hidden>no</p><div style='color: red; DISPLAY:none'>no</div>"
        "<span aria-hidden=true>no</span><template>no</template>"
    )
    assert read(page).text == read(page, keep=True).text == "shown"


def test_headings_become_the_map() -> None:
    document = read(
        "<h1>One</h1><p>a</p><h2>Two <a href=#two>\u200b</a></h2><p>b</p><h3></h3>"
        "<h2>Three</h2><p>c</p><h1>Four</h1>"
    )
    assert [(document.text[p.start : p.end].strip(), p.headings) for p in document.parts] == [
        ("One\n\na", ("One",)),
        ("Two \u200b\n\nb", ("One", "Two")),
        ("Three\n\nc", ("One", "Three")),
        ("Four", ("Four",)),
    ]


def test_lists_stand_beside_their_marks() -> None:
    assert read("<ul><li><p>first</p><p>more</p></li><li>second</li></ul>").text == (
        "- first\n\nmore\n\n- second"
    )


FEED = """<?xml version="1.0" encoding="utf-8"?><rss version="2.0"
 xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel><title>News &amp; more</title>
<description>About it</description><image><title>Logo</title></image>
<item><title>First</title><pubDate>Mon, 01 Jan 2024</pubDate><description>short</description>
<content:encoded><![CDATA[<p>The <b>whole</b> text</p>]]></content:encoded></item>
<item><title>Second &lt;b&gt;bold&lt;/b&gt;</title><description>plain</description></item>
</channel></rss>"""


@pytest.mark.parametrize("name", ["a.xml", "a.rss"])
def test_feeds(name: str) -> None:
    document = read(FEED, name=name)
    assert (document.title, document.media_type) == ("News & more", "application/rss+xml")
    assert document.text == (
        "About it\n\nFirst\n\nMon, 01 Jan 2024\n\nThe whole text\n\nSecond bold\n\nplain"
    )
    assert [part.headings for part in document.parts] == [(), ("First",), ("Second bold",)]


def test_atom() -> None:
    feed = (
        '<feed xmlns="http://www.w3.org/2005/Atom"><title>T</title><entry><title>E</title>'
        "<author><name>Ann</name></author><summary type='html'>&lt;p&gt;s&lt;/p&gt;</summary>"
        "</entry></feed>"
    )
    document = read(feed, name="a.atom")
    assert (document.title, document.text) == ("T", "E\n\nAnn\n\ns")


@pytest.mark.parametrize(
    "text", ["<a><b>text</b></a>", "<rss><channel><title>broken", "<!DOCTYPE a><a/>"]
)
def test_other_xml_stays_as_it_is(text: str) -> None:
    document = read(text, name="a.xml")
    assert (document.text, document.media_type) == (text, "application/xml")
