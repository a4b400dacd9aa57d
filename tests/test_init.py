"""What ``import deixis`` offers."""

import numpy as np
from PIL import Image

import deixis
from deixis import grounder


def test_classes_when_asked_of_the_package_then_those_of_the_grounder():
    for name in ("EncodedImage", "Grounder", "Grounding"):
        assert getattr(deixis, name) is getattr(grounder, name)
        assert name in deixis.__all__
        assert name in dir(deixis)
    assert deixis.Scene is deixis.EncodedImage  # its earlier name


def test_draw_when_groundings_come_from_a_file_then_they_are_drawn_over_it(tmp_path):
    Image.new("RGB", (30, 20), "white").save(tmp_path / "white.png")
    found = grounder.Grounding(
        phrase="dog", box=(2.0, 3.0, 20.0, 15.0), mask=np.zeros((20, 30), bool), score=0.5, agreement=0.5, found=True,
        ms=1.0, model="none", hw=(20, 30), image=tmp_path / "white.png",
    )  # fmt: skip
    drawn = deixis.draw([found])
    assert drawn.size == (30, 20)
    assert np.ptp(np.asarray(drawn)) > 0


def test_create_model_when_of_the_mcn_family_then_fields_are_replaced(small_mcn_encoder, small_mcn_fields):
    model = deixis.create_model("mcn-tiny", **small_mcn_fields, vocab_size=7)
    assert (model.config.family, model.config.vocab_size, model.config.dim) == ("mcn", 7, 8)
    assert {"mcn-darknet53", "mcn-vgg16", "mcn-tiny"} <= set(deixis.list_models())
