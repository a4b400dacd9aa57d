import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data import open_dataset
from deixis.data.formats.flickr30k import read_boxes, read_flickr30k

SENTENCES = (
    "[/EN#1/people Two young guys] with [/EN#2/bodyparts shaggy hair] in [/EN#3/scene the yard] .\n"
    "[/EN#1/people/other Two men] see [/EN#0/notvisual it] .\n"
)
XML = """<?xml version="1.0"?>
<annotation><filename>36979.jpg</filename><size><width>100</width><height>50</height><depth>3</depth></size>
<object><name>1</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>25</ymax></bndbox></object>
<object><name>1</name><name>2</name><bndbox><xmin>41</xmin><ymin>1</ymin><xmax>100</xmax><ymax>50</ymax></bndbox></object>
<object><name>3</name><scene>1</scene><nobndbox>1</nobndbox></object></annotation>
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("Sentences", "Annotations"):
        (tmp_path / name).mkdir()
    (tmp_path / "Sentences" / "36979.txt").write_text(SENTENCES)
    (tmp_path / "Annotations" / "36979.xml").write_text(XML)
    (tmp_path / "val.txt").write_text("36979\n")
    return tmp_path


def test_read_flickr30k_when_phrases_are_marked_then_a_sample_each_that_has_a_box(folder):
    guys, hair, men = data = read_flickr30k(folder)
    assert [one.phrase for one in data] == ["Two young guys", "shaggy hair", "Two men"]
    # pixels 11..30 counted from 1, both ends in: edges 10 and 30
    assert hair.box_xyxy_px == (40, 0, 100, 50)
    assert guys.box_xyxy_px == men.box_xyxy_px == (10, 0, 100, 50)
    assert [one.kind for one in data] == ["several", None, "several"]
    assert [one.category for one in data] == ["people", "bodyparts", "people"]
    assert [one.id for one in data] == ["36979-0-0", "36979-0-1", "36979-1-0"]
    assert guys.image_id == "36979"
    assert data.referents == ((0, 2), (1,))
    assert data.left_out == 2  # the yard and it
    assert list(data.problems) == [
        "Annotations/36979.xml: no box for the entity of a phrase, such as a scene; its expressions left out: 2"
    ]
    assert len(open_dataset(folder)) == len(read_flickr30k(folder, "all")) == 3


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        (b"[/EN#1/people Two young", 1),
        (b"[/EN#1/people Two [/EN#2/bodyparts shaggy hair] .", 1),
        (b"[/EN#x/people Two] with [/EN#2/bodyparts hair] .", 1),
        (b"[/EN#1/people Two caf\xe9s] and [/EN#2/bodyparts hair]", 2),
        (b"[/EN#1/people  ] .", 1),
        (b"\xff", 1),
    ],
)
def test_read_flickr30k_when_a_sentence_is_damaged_then_each_of_its_marks_is_counted(folder, line, lost):
    (folder / "Sentences" / "36979.txt").write_bytes(SENTENCES.encode() + line + b"\n")
    data = read_flickr30k(folder)
    assert data.left_out == 2 + lost
    assert len(data) == 3 + line.count(b"[/EN#") - min(lost, line.count(b"[/EN#"))
    assert any("sentence 2" in problem for problem in data.problems)


def test_read_flickr30k_when_the_release_is_unpacked_into_annotations_then_read(folder):
    (folder / "annotations").mkdir()
    for name in ("Sentences", "Annotations"):
        (folder / name).rename(folder / "annotations" / name)
    assert len(read_flickr30k(folder)) == 3


@pytest.mark.parametrize("where", ["flickr30k-images", "images", "."])
def test_open_dataset_when_flickr30k_and_a_root_then_images_are_found(folder, where):
    (folder / where).mkdir(exist_ok=True)
    with pytest.raises(FileNotFoundError, match=r"expected the images, such as '36979\.jpg'"):
        open_dataset("flickr30k", root=folder)
    (folder / where / "36979.jpg").write_bytes(b"")
    assert open_dataset("flickr30k", root=folder)[0].image == folder / where / "36979.jpg"


BOMB = '<!DOCTYPE a [<!ENTITY x "' + "ha" * 50 + '"><!ENTITY y "&x;&x;&x;&x;">]><a>&y;</a>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>'


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        (BOMB, "expected XML without a document type, got one, which was not opened"),
        (OUTSIDE, "expected XML without a document type"),
        ("", "expected XML, got something else"),
        (XML[:200], "expected XML, got something else"),
        ("<a>" * 100, "expected XML at most 20 deep"),
        ("<?xml version='1.0' encoding='none'?><a/>", "expected XML, got something else"),
        ("<a>\xff</a>".encode("latin-1"), "expected XML, got something else"),
    ],
)
def test_read_flickr30k_when_an_xml_is_wrong_then_its_phrases_are_counted_and_told(folder, xml, why):
    for name in ("Sentences/2.txt", "Annotations/2.xml"):
        source = folder / name.replace("2.", "36979.")
        (folder / name).write_bytes(source.read_bytes())
    (folder / "val.txt").write_text("2\n36979\n")
    (folder / "Annotations" / "2.xml").write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    data = read_flickr30k(folder)
    assert len(data) == 3
    assert data.left_out == 2 + 5
    assert data.problems[0].startswith("Annotations/2.xml: ")
    assert why in data.problems[0]


def test_read_boxes_when_objects_are_wrong_then_each_is_told():
    def thing(name, *numbers):
        sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), numbers, strict=True))
        return f"<object><name>{name}</name><bndbox>{sides}</bndbox></object>"

    wrong = [thing(1, "nan", 1, 2, 3), thing("", 1, 1, 2, 3), thing(1, 9, 1, 2, 3), thing(1, 1, 1, "9" * 40, 3)]
    found = read_boxes(f"<annotation>{''.join(wrong)}{thing(7, 1, 1, 2, 2)}</annotation>".encode())
    assert found.boxes == {"7": [(0, 0, 2, 2)]}
    assert len(found.problems) == 4
    assert found.hw is None


def test_read_flickr30k_when_files_are_missing_then_told(folder):
    (folder / "val.txt").write_text("36979\n77\n../../etc/passwd\n")
    data = read_flickr30k(folder)
    assert len(data) == 3
    assert data.left_out == 2 + 2
    assert any("Sentences/77.txt: expected sentences in UTF-8, got no file" in problem for problem in data.problems)
    with pytest.raises(FileNotFoundError, match=r"expected the list of images 'test\.txt'"):
        read_flickr30k(folder, "test")
    with pytest.raises(FileNotFoundError, match="expected the folders 'Sentences' and 'Annotations'"):
        read_flickr30k(folder / "Sentences")
    with pytest.raises(ValueError, match="expected a split out of"):
        read_flickr30k(folder, "testA")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=5), st.integers(0, 10_000), st.booleans())
def test_read_boxes_when_damaged_then_boxes_or_one_sentence(patch, place, cut):
    data = bytearray(XML.encode())
    place %= len(data)
    data[place : None if cut else place + len(patch)] = patch
    try:
        found = read_boxes(bytes(data))
    except ValueError as error:
        assert str(error).startswith("expected XML")  # noqa: PT017
    else:
        assert all(x1 < x2 and y1 < y2 for boxes in found.boxes.values() for x1, y1, x2, y2 in boxes)
