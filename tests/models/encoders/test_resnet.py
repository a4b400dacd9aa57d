import argparse
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    BertConfig,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    ResNetBackbone,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinModel,
)

from deixis.models.encoders.resnet import BackboneEncoder, TinyEncoder, build_smcim_encoder
from deixis.models.weights.pretrained import config_as_text

WIDTHS = (8, 16, 24, 32)
DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


class Bottleneck(nn.Module):
    """Torchvision's block under its names; the stride is in the 3x3 convolution."""

    def __init__(self, before, out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, out // 4, 1, bias=False), nn.BatchNorm2d(out // 4)
        self.conv2, self.bn2 = nn.Conv2d(out // 4, out // 4, 3, stride, 1, bias=False), nn.BatchNorm2d(out // 4)
        self.conv3, self.bn3 = nn.Conv2d(out // 4, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = None
        if before != out or stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(before, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn3(self.conv3(self.bn2(self.conv2(y)).relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class Torchvision(nn.Module):
    """A ResNet under torchvision's names, written anew: what the conversions are held against."""

    def __init__(self, depths):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)
        before = 4
        for stage, (out, depth) in enumerate(zip(WIDTHS, depths, strict=True), start=1):
            blocks = [
                Bottleneck(before, out, 1 if stage == 1 else 2),
                *(Bottleneck(out, out, 1) for _ in range(depth - 1)),
            ]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            before = out
        self.fc = nn.Linear(before, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps[1:]


def randomise(module):
    """Batch-norm statistics away from 0 and 1, and scales that keep the activations small."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.2, 0.6)
            nn.init.normal_(layer.bias, std=0.1)
    return module.eval()


def small_config(depths=(1, 2, 1, 1), **values):
    return ResNetConfig(embedding_size=4, hidden_sizes=list(WIDTHS), depths=list(depths), **values)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return BackboneEncoder(small_config()).eval()


@pytest.fixture
def torchvision():
    torch.manual_seed(1)
    return randomise(Torchvision((1, 2, 1, 1)))


PIXELS = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def run(encoder, pixels=PIXELS):
    with torch.no_grad():
        maps = encoder(pixels)
    return maps.stride8, maps.stride16, maps.stride32


def normalised(pixels):
    """ImageNet's mean and deviation."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean[:, None, None]) / std[:, None, None]


def assert_one_sentence(caught, *words):
    text = str(caught.value)
    assert text.startswith("expected ")
    assert "\n" not in text
    assert len(text) < 600
    for word in words:
        assert word in text


# what is built


@pytest.mark.parametrize(("name", "parameters"), [("resnet50", 23_508_032), ("resnet101", 42_500_160)])
def test_build_when_a_resnet_is_named_then_torchvisions_count_without_its_classifier(name, parameters):
    with torch.device("meta"):
        encoder = build_smcim_encoder(name)
    assert encoder.channels == (512, 1024, 2048)
    assert sum(p.numel() for p in encoder.parameters()) == parameters  # 25 557 032 and 44 549 160 less 2 049 000


def test_encoder_when_run_then_maps_at_strides_8_16_and_32_of_the_normalised_picture(encoder):
    reference = ResNetBackbone(small_config(out_features=["stage2", "stage3", "stage4"])).eval()
    reference.load_state_dict(encoder.body.state_dict())
    with torch.no_grad():
        expected = reference(normalised(PIXELS)).feature_maps
    assert encoder.channels == WIDTHS[1:]
    assert [tuple(one.shape) for one in expected] == [(2, 16, 8, 12), (2, 24, 4, 6), (2, 32, 2, 3)]
    for one, other in zip(run(encoder), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_build_when_darknet_tiny_then_the_yolo_body():
    encoder = build_smcim_encoder("darknet-tiny")
    assert isinstance(encoder, TinyEncoder)
    assert [tuple(one.shape[1:]) for one in run(encoder, PIXELS[:1, :, :, :64])] == [
        (128, 8, 8),
        (256, 4, 4),
        (512, 2, 2),
    ]


# what is frozen


def test_frozen_parameters_when_resnet_then_stem_first_stage_and_every_batch_norm(encoder):
    frozen = {id(p) for p in encoder.frozen_parameters()}
    for name, parameter in encoder.body.named_parameters():
        early = name.startswith(("embedder.", "encoder.stages.0."))
        assert (id(parameter) in frozen) == (early or "normalization" in name), name
    assert len(frozen) == len(encoder.frozen_parameters())


def test_frozen_parameters_when_darknet_tiny_then_three_convolutions_and_every_batch_norm():
    encoder = build_smcim_encoder("darknet-tiny")
    frozen = {id(p) for p in encoder.frozen_parameters()}
    learnt = {name for name, p in encoder.named_parameters() if id(p) not in frozen}
    assert learnt == {f"body.{i}.conv.weight" for i in range(3, 7)} | {f"head.{i}.conv.weight" for i in range(2)}


@pytest.mark.parametrize("name", ["small", "darknet-tiny"])
def test_train_when_batch_norm_is_frozen_then_statistics_stay_and_else_they_learn(name, encoder):
    encoder = encoder if name == "small" else build_smcim_encoder(name)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    for parameter in encoder.frozen_parameters():
        parameter.requires_grad_(False)
    expected = run(encoder.eval())
    encoder.train()
    for one, other in zip(run(encoder), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
    encoder.requires_grad_(True).train()
    run(encoder)
    after = encoder.state_dict()
    assert all(not torch.equal(before[k], after[k]) for k in after if k.endswith("running_mean"))


# other programs' weights


def saved(module, path, *, prefix="", wrap=None, drop=(), extra=None):
    state = {f"{prefix}{k}": v for k, v in module.state_dict().items() if not k.endswith(drop)} | (extra or {})
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({wrap: state, "epoch": 3, "args": argparse.Namespace(lr=1e-4)} if wrap else state, path)
    return path


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_load_when_torchvision_names_and_true_depths_then_the_same_maps(tmp_path, name):
    torch.manual_seed(2)
    reference, encoder = randomise(Torchvision(DEPTHS[name])), BackboneEncoder(small_config(DEPTHS[name])).eval()
    encoder.load_pretrained(saved(reference, tmp_path / "resnet.pth"))
    with torch.no_grad():
        expected = reference(normalised(PIXELS))
    for one, other in zip(run(encoder), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("torchvision.safetensors", {}),
        ("old-torchvision.pth", {"drop": "num_batches_tracked"}),
        (
            "detr.pth",
            {
                "prefix": "backbone.0.body.", "wrap": "model", "drop": ("num_batches_tracked", "fc.weight", "fc.bias"),
                "extra": {"transformer.encoder.layers.0.norm1.weight": torch.ones(4), "input_proj.bias": torch.ones(4)},
            },
        ),
        ("transvg.pth", {"prefix": "visumodel.backbone.0.body.", "wrap": "model"}),
        ("parallel.pt", {"prefix": "module.", "wrap": "state_dict"}),
        ("faster-rcnn.pth", {"prefix": "backbone.body.", "extra": {"backbone.fpn.bias": torch.ones(2)}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_load_when_named_as_another_program_does_then_the_same_maps(tmp_path, encoder, torchvision, file, options):
    encoder.load_pretrained(saved(torchvision, tmp_path / file, **options))
    with torch.no_grad():
        expected = torchvision(normalised(PIXELS))
    for one, other in zip(run(encoder), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.fixture
def classifier():
    """The library's own ResNet with its classifier."""
    torch.manual_seed(3)
    return randomise(ResNetForImageClassification(small_config(num_labels=7)))


@pytest.mark.parametrize("kind", ["folder", "pytorch_model.bin", "file", "hub", "half"])
def test_load_when_the_library_saved_it_then_every_tensor(tmp_path, encoder, classifier, put_on_hub, kind):
    folder = tmp_path / "saved"
    (classifier.half() if kind == "half" else classifier).save_pretrained(folder)
    source = folder / "model.safetensors" if kind == "file" else folder
    if kind == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
        torch.save(classifier.state_dict(), folder / kind)
    if kind == "hub":
        put_on_hub("someone/small-resnet", folder)
        source = Path("someone/small-resnet")
    encoder.load_pretrained(source)
    theirs = classifier.resnet.state_dict()
    assert encoder.body.state_dict().keys() == theirs.keys()
    for name, tensor in encoder.body.state_dict().items():
        assert tensor.dtype == (torch.int64 if name.endswith("tracked") else torch.float32)
        assert torch.equal(tensor, theirs[name].to(tensor.dtype)), name


def test_load_when_the_network_is_deeper_then_one_sentence_lists_names_and_nothing_is_loaded(tmp_path, encoder):
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(ValueError, match="unexpected: ") as caught:
        encoder.load_pretrained(saved(Torchvision((1, 2, 3, 1)), tmp_path / "deeper.pth"))
    assert_one_sentence(caught, "deeper.pth", "encoder.stages.2.layers.1.layer.0.convolution.weight", "… (36)")
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())


def test_load_when_parts_are_missing_or_of_another_shape_then_one_sentence(tmp_path, encoder, torchvision):
    torchvision.layer4[0].conv2 = nn.Conv2d(8, 8, 1, bias=False)
    with pytest.raises(ValueError, match="missing: ") as caught:
        encoder.load_pretrained(saved(torchvision, tmp_path / "part.pth", drop="layer2.1.bn3.bias"))
    assert_one_sentence(
        caught,
        "missing: encoder.stages.1.layers.1.layer.2.normalization.bias (1)",
        "other shape: encoder.stages.3.layers.0.layer.1.convolution.weight (8, 8, 1, 1) for (8, 8, 3, 3) (1)",
    )


def test_load_when_the_classifier_has_a_stray_neighbour_then_it_is_listed(tmp_path, encoder, torchvision):
    with pytest.raises(ValueError, match=r"unexpected: neck\.bias \(1\)"):
        encoder.load_pretrained(saved(torchvision, tmp_path / "neck.pth", extra={"neck.bias": torch.ones(1)}))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"features.0.weight": torch.ones(1)}, "got 1 other names, ['features.0.weight']"),
        ({}, "got 0 other names"),
        ({"a.layer1.0.conv1.weight": torch.ones(1), "b.layer1.0.conv1.weight": torch.ones(1)}, "got 2 of them"),
        ({"xlayer1.0.conv1.weight": torch.ones(1)}, "got 1 other names"),
        ({"layer1.0.conv1.weight": torch.ones(1), "bn1.bias": torch.tensor([torch.nan])}, "finite floats"),
        ({"layer1.0.conv1.weight": torch.ones(1, dtype=torch.int64)}, "finite floats"),
        ({"model": torch.ones(1), "layer1.0.conv1.weight": 3}, "names to tensors"),
        ([1, 2], "names to tensors"),
        ({"model": {"model": {}}}, "names to tensors"),
    ],
    ids=["vgg", "empty", "two", "other-name", "nan", "integers", "numbers", "list", "nested"],
)
def test_load_when_the_file_is_another_one_then_one_sentence(tmp_path, encoder, state, words):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth") as caught:
        encoder.load_pretrained(tmp_path / "other.pth")
    assert_one_sentence(caught, words)


class Executed:
    """Creates a file when a pickle of it is opened by the standard loader."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_load_when_the_file_holds_code_or_is_damaged_then_it_is_not_run(tmp_path, encoder, ending):
    path = tmp_path / f"evil{ending}"
    for content in (pickle.dumps({"model": Executed(tmp_path / "ran")}), b"", b"\x80\x02", b"\xff" * 64, b"{" * 64):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as data") as caught:
            encoder.load_pretrained(path)
        assert_one_sentence(caught, path.name)
    torch.save({"model": Executed(tmp_path / "ran")}, path)
    with pytest.raises(ValueError, match="cannot be read as data"):
        encoder.load_pretrained(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["none.pth", "none/none.safetensors", "no/such/folder", "someone/unknown", "", "empty"]
)
def test_load_when_there_is_no_such_file_then_one_sentence(tmp_path, encoder, put_on_hub, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        encoder.load_pretrained(name)
    assert_one_sentence(caught, repr(name) if name else "''")


# other backbones


def small_model(kind):
    torch.manual_seed(4)
    if kind == "swin":
        return SwinModel(
            SwinConfig(image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=2)
        )
    return ConvNextModel(ConvNextConfig(hidden_sizes=list(WIDTHS), depths=[1, 1, 1, 1]))


@pytest.mark.parametrize(("kind", "channels"), [("swin", (16, 32, 64)), ("convnext", (16, 24, 32))])
@pytest.mark.parametrize("place", ["folder", "hub"])
def test_build_when_a_folder_or_name_of_the_library_then_its_backbone_and_weights(
    tmp_path, put_on_hub, monkeypatch, kind, channels, place
):
    model = small_model(kind)
    model.save_pretrained(tmp_path / "saved")
    name = str(tmp_path / "saved")
    if place == "hub":
        put_on_hub(f"someone/{kind}", name)
        name = f"someone/{kind}"
    encoder = build_smcim_encoder(name).eval()
    assert encoder.channels == channels
    shapes = [tuple(one.shape) for one in run(encoder, PIXELS[:1, :, :, :64])]
    assert shapes == [(1, c, s, s) for c, s in zip(channels, (8, 4, 2), strict=True)]
    encoder.load_pretrained(name)
    own = {k.removeprefix("swin."): v for k, v in encoder.body.state_dict().items()}
    shared = {k: v for k, v in model.state_dict().items() if k in own}
    assert len(shared) > 20
    assert all(torch.equal(own[k], v) for k, v in shared.items())
    frozen = {id(p) for p in encoder.frozen_parameters()}
    names = {n.removeprefix("swin.") for n, p in encoder.body.named_parameters() if id(p) in frozen}
    first = "encoder.layers.0." if kind == "swin" else "encoder.stages.0."
    assert names == {n for n in own if n.startswith(("embeddings.", first)) and n in dict(model.named_parameters())}


@pytest.mark.parametrize("kind", ["swin", "convnext", "dinov2", "resnet"])
def test_build_when_the_configuration_itself_is_named_then_the_same_network(tmp_path, kind):
    config = {
        "dinov2": lambda: Dinov2Config(hidden_size=8, num_hidden_layers=6, num_attention_heads=2, image_size=64),
        "resnet": small_config,
    }.get(kind, lambda: small_model(kind).config)()
    config.save_pretrained(tmp_path)
    encoder = build_smcim_encoder(str(tmp_path))
    told = config_as_text(encoder.body.config)
    again = build_smcim_encoder(told)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in encoder.named_parameters()}
    assert again.body.out_features == encoder.body.out_features
    assert config_as_text(again.body.config) == told
    assert str(tmp_path) not in told


def test_build_when_the_folder_holds_half_precision_then_float32(tmp_path):
    small_model("convnext").half().save_pretrained(tmp_path)
    encoder = build_smcim_encoder(str(tmp_path))
    encoder.load_pretrained(tmp_path)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_build_when_a_plain_vision_transformer_then_maps_of_its_thirds_are_resized(tmp_path):
    sizes = Dinov2Config(hidden_size=8, num_hidden_layers=6, num_attention_heads=2, patch_size=16, image_size=64)
    sizes.save_pretrained(tmp_path)
    encoder = build_smcim_encoder(str(tmp_path)).eval()
    assert encoder.body.out_features == ["stage2", "stage4", "stage6"]
    assert [tuple(one.shape) for one in run(encoder)] == [(2, 8, 8, 12), (2, 8, 4, 6), (2, 8, 2, 3)]


def test_build_when_a_resnet_of_other_sizes_lies_in_a_folder_then_built_from_its_config_alone(tmp_path):
    small_config().save_pretrained(tmp_path)
    encoder = build_smcim_encoder(str(tmp_path))
    assert encoder.channels == WIDTHS[1:]
    assert encoder.body.config.depths == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(BertConfig().to_dict()), "of the kind 'bert'"),
        (json.dumps({"model_type": "timm_backbone", "backbone": "resnet18"}), "of the kind 'timm_backbone'"),
        ('{"model_type": "no-such-kind"}', "cannot be used"),
        ("{}", "cannot be used"),
        ("[1]", "cannot be used"),
        ("{", "cannot be used"),
        ("[" * 100_000, "cannot be used"),
        ('{"model_type": "resnet", "depths": "deep"}', "cannot be used"),
        ('{"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [8, 8]}', "three stages or more"),
        ('{"model_type": "resnet", "hidden_sizes": [8]}', "cannot be used"),
        ('{"model_type": "resnet", "hidden_act": "none"}', "cannot be used"),
    ],
    ids=["bert", "timm", "kind", "no-kind", "list", "cut", "deep", "type", "shallow", "short", "activation"],
)
def test_build_when_the_config_is_wrong_then_one_sentence(tmp_path, content, words):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=tmp_path.name) as caught:
        build_smcim_encoder(str(tmp_path))
    assert_one_sentence(caught, words)


@pytest.mark.parametrize("name", ["resnet18-typo", "someone/unknown", "no/such/folder", "../x", " "])
def test_build_when_there_is_no_such_name_then_one_sentence(put_on_hub, name):
    with pytest.raises(FileNotFoundError, match=r"config\.json") as caught:
        build_smcim_encoder(name)
    assert_one_sentence(caught, repr(name))
