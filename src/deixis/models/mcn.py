"""MCN, the Multi-task Collaborative Network (CVPR 2020): one image, any number of phrases, a box and a mask for each.

Letters: B images, P phrases, S canvas side, D width of the branches, A anchors, g cells a side of the box branch,
s of the mask branch. F_v are the encoder's maps, F_m those fused with the phrase; 1, 2, 3 are strides 32, 16, 8. The
numbers 13 and 52 in the names of structures are the sides of the first and the last on a canvas of 416.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.config import McnConfig
from deixis.models.base import Answer, GroundingModel, energy_map, log_odds
from deixis.models.darknet import BatchNorm, ConvNormLeaky, DarknetResidual, ThreeScales, build_mcn_encoder
from deixis.models.garan import Garan
from deixis.models.mcn_text import GruAttentionEncoder
from deixis.models.suppression import MASK_THRESHOLD
from deixis.models.yolo import best_box

ASPP_DILATIONS = (6, 12, 18)
BATCH_NORM_MOMENTUM = 0.1  # PyTorch's own


@dataclass(frozen=True)
class McnScene:
    """Encoded images; each row can meet any number of phrases."""

    maps: ThreeScales

    def pick(self, index: Tensor) -> Self:
        """The rows ``index`` [P], one for each phrase."""
        return type(self)(self.maps.pick(index))


@dataclass(frozen=True)
class McnOutput:
    """What the model says of P phrases; None where its structure has no such branch, or GARAN or CEM is off."""

    box_logits: Tensor | None  # [P, A, 5, g, g]: t_x, t_y, t_w, t_h, confidence
    mask_logits: Tensor | None  # [P, s, s]
    rec_attended: Tensor | None  # [P, D, g, g], GARAN's F_att of the box branch
    res_attended: Tensor | None  # [P, D, s, s], of the mask branch
    rec_energy: Tensor | None  # [P, g * g] logits E_c, MCN Eq. 5
    res_energy: Tensor | None  # [P, s * s] logits E_s


@dataclass(frozen=True)
class Branch:
    """What one task's head predicts from."""

    features: Tensor  # [P, D, side, side]
    attended: Tensor | None  # the same shape: F_att, before the residual


class Projection(nn.Module):
    """LeakyReLU(x W): a 1x1 convolution without bias and norm, as Eq. 1 and 2 are printed."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, a=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """[P, in, H, W] to [P, out, H, W]."""
        return F.leaky_relu(self.conv(x), 0.1)


class Fusion(nn.Module):
    """F_m1, the product of image and phrase. MCN Eq. 1.

    ``official``: a residual block on the image; linear layer, batch-norm, LeakyReLU on the phrase; their product
    through batch-norm and LeakyReLU. An encoder whose F_v1 is not ``fusion_dim`` wide (mcn-tiny, or the paper's 512)
    gets a 1x1 convolution before the residual block, which the official code never needs. The linear layer has no
    bias, as the norm would take it out.
    ``paper``: the product of two projections, as printed.
    """

    def __init__(self, config: McnConfig, channels: int) -> None:
        super().__init__()
        dim = config.fusion_dim
        if config.fusion == "paper":
            self.image: nn.Module = Projection(channels, dim)
            self.phrase: nn.Module = Projection(config.text_dim, dim)
            self.norm = None
        else:
            fit = [] if channels == dim else [ConvNormLeaky(channels, dim)]
            self.image = nn.Sequential(*fit, DarknetResidual(dim))
            self.phrase = ConvNormLeaky(config.text_dim, dim)
            self.norm = BatchNorm(dim)

    def forward(self, coarse: Tensor, query: Tensor) -> Tensor:
        """F_v1 [P, C, g, g] and the phrase [P, text_dim] to F_m1 [P, fusion_dim, g, g]."""
        product = self.image(coarse) * self.phrase(query[..., None, None])
        return product if self.norm is None else F.leaky_relu(self.norm(product), 0.1, inplace=True)


class StepUp(nn.Module):
    """One step of the top-down path: the coarser F_m, twice as large, meets F_v. MCN Eq. 2.

    ``official``: the upsampled map as it is and a 1x1 convolution of F_v side by side, then a 1x1 convolution. F_v
    keeps its width where it is narrower than ``dim``: 256 channels at stride 8 of DarkNet-53, 512 elsewhere.
    ``paper``: the two projections side by side, as printed. Each is half of ``dim`` wide, so that F_m is ``dim`` wide
    as in the official variant; the paper's "project dimension" can be read so.
    """

    def __init__(self, config: McnConfig, coarse_channels: int, channels: int) -> None:
        super().__init__()
        dim = config.dim
        if config.top_down == "paper":
            self.coarse: nn.Module = Projection(coarse_channels, dim - dim // 2)
            self.lateral: nn.Module = Projection(channels, dim // 2)
            self.merge: nn.Module = nn.Identity()
        else:
            width = min(dim, channels)
            self.coarse = nn.Identity()
            self.lateral = ConvNormLeaky(channels, width)
            self.merge = ConvNormLeaky(coarse_channels + width, dim)

    def forward(self, coarse: Tensor, visual: Tensor) -> Tensor:
        """F_m of the coarser scale and F_v [P, C, 2h, 2w] to F_m [P, dim, 2h, 2w]."""
        # projecting before upsampling gives the same as after it, at a quarter of the work
        larger = F.interpolate(self.coarse(coarse), scale_factor=2.0)
        return self.merge(torch.cat([larger, self.lateral(visual)], 1))


class StepDown(nn.Module):
    """One step of the bottom-up path: halve the map, then lay the coarser F_m beside it. MCN section 3.1."""

    def __init__(self, config: McnConfig, channels: int) -> None:
        super().__init__()
        dim = config.dim
        fit = [] if channels == dim else [ConvNormLeaky(channels, dim)]
        self.path = nn.Sequential(
            *fit, nn.AvgPool2d(2), ConvNormLeaky(dim, dim // 2), ConvNormLeaky(dim // 2, dim, kernel=3)
        )

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """[P, channels, 2h, 2w] and [P, C, h, w] to [P, dim + C, h, w]."""
        return torch.cat([self.path(fine), coarse], 1)


class Refinement(nn.Module):
    """GARAN before a head; without it (Table 2), the map as it is."""

    def __init__(self, config: McnConfig) -> None:
        super().__init__()
        self.garan = Garan(config.dim, config.text_dim, config.garan_heads) if config.garan else None

    def forward(self, features: Tensor, query: Tensor) -> Branch:
        """[P, D, h, w] and the phrase [P, text_dim]."""
        return Branch(features, None) if self.garan is None else Branch(*self.garan(features, query))


class CoarseTrunk(nn.Module):
    """A branch that ends at F_m1, stride 32: fusion, a 1x1 convolution to ``dim``, GARAN. Table 3, "scale 13"."""

    def __init__(self, config: McnConfig, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.fusion = Fusion(config, channels[2])
        self.narrow = ConvNormLeaky(config.fusion_dim, config.dim)
        self.refinement = Refinement(config)

    def forward(self, maps: ThreeScales, query: Tensor) -> Branch:
        """F_v1 to F_v3 and the phrase [P, text_dim] to a branch at stride 32."""
        return self.refinement(self.narrow(self.fusion(maps.stride32, query)), query)


class FineTrunk(nn.Module):
    """A branch that ends at F_m3, stride 8: fusion, the top-down path, GARAN. Table 3, "scale 52"."""

    def __init__(self, config: McnConfig, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.fusion = Fusion(config, channels[2])
        self.up16 = StepUp(config, config.fusion_dim, channels[1])
        self.up8 = StepUp(config, config.dim, channels[0])
        self.refinement = Refinement(config)

    def top_down(self, maps: ThreeScales, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F_m1, F_m2, F_m3."""
        coarse = self.fusion(maps.stride32, query)
        middle = self.up16(coarse, maps.stride16)
        return coarse, middle, self.up8(middle, maps.stride8)

    def forward(self, maps: ThreeScales, query: Tensor) -> Branch:
        """F_v1 to F_v3 and the phrase [P, text_dim] to a branch at stride 8."""
        return self.refinement(self.top_down(maps, query)[2], query)


class SharedInference(nn.Module):
    """One trunk for the heads there are: Single_REC, Single_RES and OnlyHeadDifferent of Table 3."""

    def __init__(self, trunk: CoarseTrunk | FineTrunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, maps: ThreeScales, query: Tensor) -> tuple[Branch, Branch]:
        """The same branch for box and mask."""
        branch = self.trunk(maps, query)
        return branch, branch


class IndependentInference(nn.Module):
    """OnlyBackboneShared of Table 3: a trunk at stride 32 for the box, one at stride 8 for the mask.

    Each fuses image and phrase for itself; encoder and text encoder are shared.
    """

    def __init__(self, config: McnConfig, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.rec = CoarseTrunk(config, channels)
        self.res = FineTrunk(config, channels)

    def forward(self, maps: ThreeScales, query: Tensor) -> tuple[Branch, Branch]:
        """Branches of box and mask."""
        return self.rec(maps, query), self.res(maps, query)


class CollaborativeInference(nn.Module):
    """MCN: down to F_m3 for the mask, and from there the bottom-up path to the box. MCN Fig. 2.

    ``official`` order: the path starts from the map that GARAN refined and that the mask is predicted from;
    ``paper``: GARAN comes "afterwards", so the path starts from F_m3.
    """

    def __init__(self, config: McnConfig, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.from_refined = config.garan_order == "official"
        self.res = FineTrunk(config, channels)
        self.down16 = StepDown(config, config.dim)
        self.down32 = StepDown(config, 2 * config.dim)
        self.narrow = ConvNormLeaky(config.dim + config.fusion_dim, config.dim)
        self.refinement = Refinement(config)

    def forward(self, maps: ThreeScales, query: Tensor) -> tuple[Branch, Branch]:
        """Branches of box and mask."""
        coarse, middle, fine = self.res.top_down(maps, query)
        res = self.res.refinement(fine, query)
        x = self.down16(res.features if self.from_refined else fine, middle)
        x = self.narrow(self.down32(x, coarse))  # F'_m1
        return self.refinement(x, query), res


def _inference(config: McnConfig, channels: tuple[int, int, int]) -> nn.Module:
    """What stands between the encoders and the heads in that row of Table 3."""
    if config.structure == "mcn":
        return CollaborativeInference(config, channels)
    if config.structure == "only-backbone-shared":
        return IndependentInference(config, channels)
    trunk = CoarseTrunk if config.structure.endswith("-13") else FineTrunk
    return SharedInference(trunk(config, channels))


def _linear_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution with bias that nothing follows; biases begin at zero."""
    conv = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
    return conv


class BoxHead(nn.Module):
    """YOLOv3's regression layer: five numbers an anchor and cell. MCN Eq. 4."""

    def __init__(self, config: McnConfig) -> None:
        super().__init__()
        self.anchors = len(config.anchors_px)
        self.conv = _linear_conv(config.dim, 5 * self.anchors)

    def forward(self, features: Tensor) -> Tensor:
        """[P, D, g, g] to [P, A, 5, g, g]."""
        return self.conv(features).unflatten(1, (self.anchors, 5)).float()


class AsppHead(nn.Module):
    """Atrous spatial pyramid pooling: five views of a map beside each other, then one logit a cell. MCN Eq. 3."""

    def __init__(self, config: McnConfig) -> None:
        super().__init__()
        dim, width = config.dim, config.aspp_dim
        self.near = ConvNormLeaky(dim, width)
        self.wide = nn.ModuleList(ConvNormLeaky(dim, width, 3, dilation=dilation) for dilation in ASPP_DILATIONS)
        self.whole = ConvNormLeaky(dim, width)
        self.conv = _linear_conv((2 + len(ASPP_DILATIONS)) * width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """[P, D, s, s] to [P, s, s]."""
        whole = self.whole(features.mean((-1, -2), keepdim=True)).expand(-1, -1, *features.shape[-2:])
        views = [self.near(features), *(conv(features) for conv in self.wide), whole]
        return self.conv(torch.cat(views, 1)).squeeze(1).float()


def _energy(conv: nn.Conv2d | None, attended: Tensor | None) -> Tensor | None:
    """F_att [P, D, h, w] to logits [P, h * w]. MCN Eq. 5."""
    return None if conv is None or attended is None else conv(attended).flatten(1).float()


class McnModel(GroundingModel):
    """Image and phrases to boxes and masks, in the structure that the configuration names."""

    config: McnConfig
    score_weights = (1.0, 0.0)  # the box's confidence, the agreement
    adapts_canvas = False  # one size, as in the paper
    suppression_order = "official"

    def __init__(self, config: McnConfig) -> None:
        super().__init__()
        self.config = config
        self.suppression = config.suppression
        self.fill = config.fill
        self.mask_stride = 32 if config.structure.endswith("-13") else 8
        self.encoder = build_mcn_encoder(config.image_encoder)
        self.text = GruAttentionEncoder(
            config.vocab_size, config.word_dim, config.text_dim,
            attend=config.text_attention, mask_padding=config.mask_padding, train_words=config.train_words,
        )  # fmt: skip
        self.inference = _inference(config, self.encoder.channels)
        self.box = None if config.structure.startswith("single-res") else BoxHead(config)
        self.mask = None if config.structure.startswith("single-rec") else AsppHead(config)
        self.rec_energy = None if config.cem == "off" else _linear_conv(config.dim, 1)
        self.res_energy = None if config.cem == "off" else _linear_conv(config.dim, 1)

    def train(self, mode: bool = True) -> Self:
        """Switch to training; batch-norm of the encoder's frozen part keeps its stored statistics.

        What is frozen is what requires no gradient. ``frozen_norm`` says by what such a layer normalises in training.
        ``eval``: by the stored statistics, those in use afterwards; a deviation. ``batch``: by the batch's, as the
        official code does, and the stored ones stay as they are.
        """
        super().train(mode)
        for layer in self.encoder.modules():
            if isinstance(layer, BatchNorm):
                frozen = not layer.weight.requires_grad
                layer.momentum = 0.0 if frozen else BATCH_NORM_MOMENTUM
                layer.train(mode and not (frozen and self.config.frozen_norm == "eval"))
        return self

    def encode_image(self, pixels: Tensor, content: Tensor) -> McnScene:
        """``pixels`` [B, 3, S, S] RGB 0..1 on the letterboxed canvas, S a multiple of 32.

        ``content`` [B, 4] is not looked at: the padding takes part, as in the official code.
        """
        if pixels.shape[-1] % 32 or pixels.shape[-2] % 32:
            raise ValueError(f"expected a canvas with sides of multiples of 32, got {tuple(pixels.shape[-2:])!r}")
        return McnScene(self.encoder(pixels))

    def ground(self, scene: McnScene, token_ids: Tensor, token_valid: Tensor) -> McnOutput:
        """``scene`` of P rows (see :meth:`McnScene.pick`) and P phrases [P, T]."""
        query = self.text(token_ids, token_valid)
        rec, res = self.inference(scene.maps, query)
        return McnOutput(
            box_logits=None if self.box is None else self.box(rec.features),
            mask_logits=None if self.mask is None else self.mask(res.features),
            rec_attended=None if self.box is None else rec.attended,
            res_attended=None if self.mask is None else res.attended,
            rec_energy=_energy(self.rec_energy, rec.attended),
            res_energy=_energy(self.res_energy, res.attended),
        )

    def answer(self, scene: McnScene, token_ids: Tensor, token_valid: Tensor) -> Answer:
        """The surest box, the mask's probabilities and the box's confidence; without a box, the mask's highest."""
        output = self.ground(scene, token_ids, token_valid)
        mask = None if output.mask_logits is None else output.mask_logits.sigmoid()
        if output.box_logits is not None:
            boxes, confidence = best_box(output.box_logits, self.config.anchors_px)
        else:
            assert mask is not None
            boxes, confidence = None, mask.amax((-1, -2))
        return Answer(boxes=boxes, mask_probability=mask, confidence=confidence, signs=log_odds(confidence)[:, None])

    def attention(self, scene: McnScene, token_ids: Tensor, token_valid: Tensor) -> dict[str, Tensor]:
        """``box``: E_c' [P, g, g]; ``mask``: E_s' [P, s, s] (MCN Eq. 5 and softmax); nothing where CEM is off.

        The padding of the canvas takes part, so a map may lie on it.
        """
        output = self.ground(scene, token_ids, token_valid)
        energies = {"box": output.rec_energy, "mask": output.res_energy}
        return {name: energy_map(energy) for name, energy in energies.items() if energy is not None}

    def preprocessing(self) -> dict[str, Any]:
        """See :class:`GroundingModel`."""
        return {
            "resize": "letterbox, bilinear, centred, on a canvas of one size",
            "largest_size": self.config.image_size,
            "fill": self.config.fill,
            "mean": list(self.encoder.pixel_mean),
            "std": list(self.encoder.pixel_std),
            "mask_threshold": MASK_THRESHOLD,
        }

    def pretrained_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The image encoder. The word vectors are a table, not a network."""
        return {"image": [*self.encoder.parameters()], "text": []}

    def frozen_parameters(self, *, image_pretrained: bool) -> list[nn.Parameter]:
        """The word vectors, and a pretrained encoder but for its last two convolutions."""
        return [*(self.encoder.frozen_parameters() if image_pretrained else []), *self.text.frozen_parameters()]

    def forward(
        self, pixels: Tensor, content: Tensor, image_index: Tensor, token_ids: Tensor, token_valid: Tensor
    ) -> McnOutput:
        """All at once: phrase p speaks of image ``image_index[p]``."""
        return self.ground(self.encode_image(pixels, content).pick(image_index), token_ids, token_valid)
