"""MCN, the Multi-task Collaborative Network (CVPR 2020): one image, any number of phrases, a box and a mask for each.

Letters: B images, P phrases, S canvas side, D width of the branches, A anchors, g cells a side of the box branch,
s of the mask branch. F_v are the encoder's maps, F_m those fused with the phrase; 1, 2, 3 are strides 32, 16, 8. The
numbers 13 and 52 in the names of structures are the sides of the first and the last on a canvas of 416.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.models.base import Answer, GroundingModel, energy_map, log_odds
from deixis.models.encoders.darknet import BatchNorm, ConvNormLeaky, DarknetResidual, ThreeScales, build_mcn_encoder
from deixis.models.mcn.config import McnConfig
from deixis.models.mcn.garan import Attended, Garan
from deixis.models.mcn.heads import AsppHead, BoxHead, best_box, linear_conv
from deixis.models.mcn.text import GruAttentionEncoder

BATCH_NORM_MOMENTUM = 0.1  # PyTorch's own


@dataclass(frozen=True)
class McnScene:
    """Encoded images; each row can meet any number of phrases."""

    maps: ThreeScales
    parts: tuple[Tensor, ...]  # what the structure computes of the maps before any phrase is known

    def pick(self, index: Tensor) -> Self:
        """The rows ``index`` [P], one for each phrase."""
        return type(self)(self.maps, tuple(part[index] for part in self.parts))


@dataclass(frozen=True)
class McnOutput:
    """What the model says of P phrases; None where its structure has no such branch, or GARAN or CEM is off."""

    box_logits: Tensor | None  # [P, A, 5, g, g]: t_x, t_y, t_w, t_h, confidence
    mask_logits: Tensor | None  # [P, s, s]
    rec_attended: Attended | None  # GARAN's F_att of the box branch, g * g positions
    res_attended: Attended | None  # of the mask branch, s * s positions
    rec_energy: Tensor | None  # [P, g * g] logits E_c, MCN Eq. 5
    res_energy: Tensor | None  # [P, s * s] logits E_s


@dataclass(frozen=True)
class Branch:
    """What one task's head predicts from."""

    features: Tensor  # [P, D, side, side]
    attended: Attended | None  # F_att, before the residual


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
        self.coordinates = config.coordinates
        channels += 2 * config.coordinates
        if config.fusion == "paper":
            self.image: nn.Module = Projection(channels, dim)
            self.phrase: nn.Module = Projection(config.text_dim, dim)
            self.norm = None
        else:
            fit = [] if channels == dim else [ConvNormLeaky(channels, dim)]
            self.image = nn.Sequential(*fit, DarknetResidual(dim))
            self.phrase = ConvNormLeaky(config.text_dim, dim)
            self.norm = BatchNorm(dim)

    def image_side(self, coarse: Tensor) -> Tensor:
        """F_v1 [B, C, g, g] to what each phrase is multiplied with [B, fusion_dim, g, g]."""
        return self.image(with_coordinates(coarse) if self.coordinates else coarse)

    def forward(self, image: Tensor, query: Tensor) -> Tensor:
        """The image side [P, fusion_dim, g, g] and the phrase [P, text_dim] to F_m1 [P, fusion_dim, g, g]."""
        product = image * self.phrase(query[..., None, None])
        return product if self.norm is None else F.leaky_relu(self.norm(product), 0.1, inplace=True)


def with_coordinates(x: Tensor) -> Tensor:
    """[B, C, h, w] and two channels more: the cells' x and y, -1 to 1 from the first to the last."""
    height, width = x.shape[-2:]
    ys, xs = (torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in (height, width))
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"))
    return torch.cat([x, grid.expand(len(x), -1, -1, -1)], 1)


class StepUp(nn.Module):
    """One step of the top-down path: the coarser F_m, twice as large, meets F_v. MCN Eq. 2.

    ``official``: the upsampled map as it is and a 1x1 convolution of F_v side by side, then a 1x1 convolution. F_v
    keeps its width where it is narrower than ``dim``: 256 channels at stride 8 of DarkNet-53, 512 elsewhere.
    ``paper``: the two projections side by side, as printed. Each is half of ``dim`` wide, so that F_m is ``dim`` wide
    as in the official variant; the paper's "project dimension" can be read so.

    A 1x1 convolution of maps side by side is the sum of one of each. So the image's is computed once an image, and the
    coarser map's before it is made larger, at a quarter of the work.
    """

    def __init__(self, config: McnConfig, coarse_channels: int, channels: int) -> None:
        super().__init__()
        dim = config.dim
        if config.top_down == "paper":
            self.coarse: Projection | None = Projection(coarse_channels, dim - dim // 2)
            self.lateral: nn.Module = Projection(channels, dim // 2)
            self.merge = None
        else:
            width = min(dim, channels)
            self.coarse = None
            self.lateral = ConvNormLeaky(channels, width)
            self.merge = ConvNormLeaky(coarse_channels + width, dim)
            self.widths = [coarse_channels, width]

    def image_side(self, visual: Tensor) -> Tensor:
        """F_v [B, C, 2h, 2w] to what each phrase's map is joined with."""
        lateral = self.lateral(visual)
        return lateral if self.merge is None else F.conv2d(lateral, self._merge_weights(self.merge)[1])

    def forward(self, coarse: Tensor, image: Tensor) -> Tensor:
        """F_m of the coarser scale and the image side, [P, ..., 2h, 2w], to F_m [P, dim, 2h, 2w]."""
        if self.merge is None:
            assert self.coarse is not None
            return torch.cat([F.interpolate(self.coarse(coarse), scale_factor=2.0), image], 1)
        coarse = F.conv2d(coarse, self._merge_weights(self.merge)[0])
        joined = F.interpolate(coarse, scale_factor=2.0) + image
        return F.leaky_relu(self.merge.norm(joined), 0.1, inplace=True)

    def _merge_weights(self, merge: ConvNormLeaky) -> Sequence[Tensor]:
        """Of the coarser map and of the image."""
        return merge.conv.weight.split(self.widths, 1)


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

    def image_side(self, maps: ThreeScales) -> tuple[Tensor, ...]:
        """What is computed of F_v1 once an image."""
        return (self.fusion.image_side(maps.stride32),)

    def forward(self, parts: tuple[Tensor, ...], query: Tensor) -> Branch:
        """The image side and the phrase [P, text_dim] to a branch at stride 32."""
        return self.refinement(self.narrow(self.fusion(parts[0], query)), query)


class FineTrunk(nn.Module):
    """A branch that ends at F_m3, stride 8: fusion, the top-down path, GARAN. Table 3, "scale 52"."""

    def __init__(self, config: McnConfig, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.fusion = Fusion(config, channels[2])
        self.up16 = StepUp(config, config.fusion_dim, channels[1])
        self.up8 = StepUp(config, config.dim, channels[0])
        self.refinement = Refinement(config)

    def image_side(self, maps: ThreeScales) -> tuple[Tensor, ...]:
        """What is computed of F_v1, F_v2 and F_v3 once an image."""
        return (
            self.fusion.image_side(maps.stride32),
            self.up16.image_side(maps.stride16),
            self.up8.image_side(maps.stride8),
        )

    def top_down(self, parts: tuple[Tensor, ...], query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F_m1, F_m2, F_m3."""
        coarse = self.fusion(parts[0], query)
        middle = self.up16(coarse, parts[1])
        return coarse, middle, self.up8(middle, parts[2])

    def forward(self, parts: tuple[Tensor, ...], query: Tensor) -> Branch:
        """The image side and the phrase [P, text_dim] to a branch at stride 8."""
        return self.refinement(self.top_down(parts, query)[2], query)


class SharedInference(nn.Module):
    """One trunk for the heads there are: Single_REC, Single_RES and OnlyHeadDifferent of Table 3."""

    def __init__(self, trunk: CoarseTrunk | FineTrunk) -> None:
        super().__init__()
        self.trunk = trunk

    def image_side(self, maps: ThreeScales) -> tuple[Tensor, ...]:
        """What is computed once an image."""
        return self.trunk.image_side(maps)

    def forward(self, parts: tuple[Tensor, ...], query: Tensor) -> tuple[Branch, Branch]:
        """The same branch for box and mask."""
        branch = self.trunk(parts, query)
        return branch, branch


class IndependentInference(nn.Module):
    """OnlyBackboneShared of Table 3: a trunk at stride 32 for the box, one at stride 8 for the mask.

    Each fuses image and phrase for itself; encoder and text encoder are shared.
    """

    def __init__(self, config: McnConfig, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.rec = CoarseTrunk(config, channels)
        self.res = FineTrunk(config, channels)

    def image_side(self, maps: ThreeScales) -> tuple[Tensor, ...]:
        """What is computed once an image, for the box and then for the mask."""
        return *self.rec.image_side(maps), *self.res.image_side(maps)

    def forward(self, parts: tuple[Tensor, ...], query: Tensor) -> tuple[Branch, Branch]:
        """Branches of box and mask."""
        return self.rec(parts[:1], query), self.res(parts[1:], query)


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

    def image_side(self, maps: ThreeScales) -> tuple[Tensor, ...]:
        """What is computed once an image."""
        return self.res.image_side(maps)

    def forward(self, parts: tuple[Tensor, ...], query: Tensor) -> tuple[Branch, Branch]:
        """Branches of box and mask."""
        coarse, middle, fine = self.res.top_down(parts, query)
        res = self.res.refinement(fine, query)
        x = self.down16(res.features if self.from_refined else fine, middle)
        x = self.narrow(self.down32(x, coarse))  # F'_m1
        return self.refinement(x, query), res


Inference = SharedInference | IndependentInference | CollaborativeInference


def _inference(config: McnConfig, channels: tuple[int, int, int]) -> Inference:
    """What stands between the encoders and the heads in that row of Table 3."""
    if config.structure == "mcn":
        return CollaborativeInference(config, channels)
    if config.structure == "only-backbone-shared":
        return IndependentInference(config, channels)
    trunk = CoarseTrunk if config.structure.endswith("-13") else FineTrunk
    return SharedInference(trunk(config, channels))


def _energy(conv: nn.Conv2d | None, attended: Attended | None) -> Tensor | None:
    """F_att to logits [P, h * w]. MCN Eq. 5."""
    return None if conv is None or attended is None else attended.project(conv)


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
        self.rec_energy = None if config.cem == "off" else linear_conv(config.dim, 1)
        self.res_energy = None if config.cem == "off" else linear_conv(config.dim, 1)

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
        maps = self.encoder(pixels)
        return McnScene(maps, self.inference.image_side(maps))

    def ground(self, scene: McnScene, token_ids: Tensor, token_valid: Tensor) -> McnOutput:
        """``scene`` of P rows (see :meth:`McnScene.pick`) and P phrases [P, T]."""
        query = self.text(token_ids, token_valid)
        rec, res = self.inference(scene.parts, query)
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

    def load_pretrained(self, part: str, path: str | Path) -> None:
        """The image encoder's, of Darknet or torchvision. The word vectors are a table: :meth:`load_word_vectors`."""
        assert part == "image"
        self.encoder.load_pretrained(path)

    def load_word_vectors(self, vectors: Tensor) -> None:
        """See :class:`GroundingModel`."""
        self.text.load_vectors(vectors)

    @property
    def image_encoder(self) -> nn.Module:
        """See :class:`GroundingModel`."""
        return self.encoder

    def pretrained_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The image encoder. The word vectors are a table, not a network."""
        return {"image": [*self.encoder.parameters()], "text": []}

    def frozen_parameters(self, *, image_pretrained: bool) -> list[nn.Parameter]:
        """The word vectors, and a pretrained encoder but for its last two convolutions."""
        return [*(self.encoder.frozen_parameters() if image_pretrained else []), *self.text.frozen_parameters()]


MODEL = McnModel
