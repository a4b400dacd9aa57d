"""The ``deixis`` family: one image, any number of phrases; the answer is chosen among what the image offers.

A detector's candidates and the cells of a grid are tokens. Words of three grains and tokens attend to each other, and
tokens to each other; one token is chosen, its box refined, and its mask is drawn by filters made from the same token,
so box and mask cannot tell different stories. Everything that needs no words happens once an image.

Letters: B images, P phrases, S canvas side, Q tokens, T text tokens, M the width where all grains meet.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.models.attention import AlternateAttention, AttentionBlock, PositionEncoding, attend_in_groups
from deixis.models.base import Answer, GroundingModel, check_signs, log_odds
from deixis.models.boxes import box_iou, grid_places, xyxy_around
from deixis.models.deixis.config import DeixisConfig
from deixis.models.deixis.detector import WIDTH, DetectionHead, Detections, GhostPan
from deixis.models.deixis.proposals import Proposals, Proposer, feature_widths
from deixis.models.encoders.image import Pyramid, build_image_encoder
from deixis.models.encoders.text import BertEncoder, build_text_encoder
from deixis.models.weights.pretrained import load_exactly, read_tensors

AGREES = 0.5
"""IoU above which two tokens' boxes are of the same instance."""
_LONGEST_LOG = 3.0
"""A refined side is at most e to this times as long as the proposal's."""


@dataclass(frozen=True)
class EncodedImage:
    """Encoded images; each row can meet any number of phrases."""

    tokens: Tensor  # [B, Q, 3 * group], one third for each grain of words
    where: Tensor  # [B, Q, 3 * group]
    proposals: Tensor  # float32 [B, Q, 4] xyxy as fractions of the canvas
    scores: Tensor  # float32 [B, Q]
    valid: Tensor  # bool [B, Q]
    prototypes: Tensor  # [B, mask_dim, S/4, S/4]

    def pick(self, index: Tensor) -> Self:
        """The rows ``index`` [P], one for each phrase."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True)
class Output:
    """What the model says of P phrases."""

    choice_logits: Tensor  # float32 [P, Q]; -inf on what is no proposal
    boxes: Tensor  # float32 [P, Q, 4] the proposals refined, xyxy as fractions of the canvas
    proposals: Tensor  # float32 [P, Q, 4] before that
    scores: Tensor  # float32 [P, Q] of the detector
    exists_logit: Tensor  # float32 [P]
    tokens: Tensor  # [P, Q, M], of which `MaskBranch` draws masks


@dataclass(frozen=True)
class Decoded:
    """One answer for each phrase."""

    token: Tensor  # int64 [P] the token that is chosen
    boxes: Tensor  # [P, 4] xyxy as fractions of the canvas
    peak: Tensor  # [P] its probability
    consensus: Tensor  # [P] share of the probability whose own boxes agree with the answer


class ImageSide(nn.Module):
    """Pixels to what the image offers, and that to tokens which know their place and each other."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: DeixisConfig) -> None:
        super().__init__()
        self.encoder = build_image_encoder(config.image_encoder)
        self.register_buffer("pixel_mean", torch.tensor(self.encoder.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(self.encoder.pixel_std).view(3, 1, 1), persistent=False)
        _, c8, c16, c32 = self.encoder.channels
        self.neck = GhostPan((c8, c16, c32))
        self.head = DetectionHead()
        self.propose = Proposer(candidates=config.candidates, cells=config.cells)
        self.look = Looks(feature_widths(c8), config.context_dim, config.dropout)
        self.position = PositionEncoding(dim=config.context_dim, coordinates=6)
        self.kind = nn.Embedding(2, config.context_dim)
        self.merge_position = nn.Linear(config.context_dim, config.merge_dim)
        sizes: dict[str, Any] = {"heads": config.context_heads, "ffn_dim": config.ffn_ratio * config.context_dim}
        self.context = nn.ModuleList(
            AttentionBlock(dim=config.context_dim, **sizes, dropout=config.dropout)
            for _ in range(config.context_layers)
        )
        self.to_groups = nn.Linear(config.context_dim, config.merge_dim)
        self.prototypes = Prototypes(config, self.encoder.channels)

    def load_nanodet(self, path: Path) -> None:
        """Take a NanoDet-Plus-m file, batch-norm folded, for encoder, neck and head.

        Whether there is a thing at all it does not tell: ``head.thing`` stays as it is.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no such file, or of another width.
        """
        stored = read_tensors(path)
        first = "backbone.conv1.0.weight"
        if first in stored:
            stored[first] = stored[first].flip(1)  # the file's pixels are blue, green, red
        for name, part in (("backbone", self.encoder), ("fpn", self.neck), ("head", self.head)):
            own = {key: value for key, value in part.state_dict().items() if key.startswith("thing.")}
            theirs = {key.removeprefix(f"{name}."): v for key, v in stored.items() if key.startswith(f"{name}.")}
            load_exactly(part, {**own, **theirs}, str(path))

    def see(self, pixels: Tensor, content: Tensor) -> tuple[Pyramid, Detections, Proposals]:
        """``pixels`` [B, 3, S, S] RGB 0..1; ``content`` [B, 4] the picture's xyxy as fractions of the canvas."""
        planar = pixels.contiguous()  # three numbers in a row are too few for vector units
        pyramid = self.encoder((planar - self.pixel_mean) / self.pixel_std)
        seen = self.head(self.neck(pyramid))
        return pyramid, seen, self.propose(pixels, pyramid, seen, content)

    def tokens(self, proposals: Proposals) -> tuple[Tensor, Tensor]:
        """Tokens and where they stand, both [B, Q, 3 * group]."""
        position = self.position(places_of(proposals.boxes, proposals.content))
        tokens = self.look(proposals.features) + position + self.kind(proposals.is_cell.long())
        for block in self.context:
            tokens = block(tokens, tokens, proposals.valid)
        return self.to_groups(tokens), self.merge_position(position)

    def forward(self, pixels: Tensor, content: Tensor) -> EncodedImage:
        """See :meth:`see`."""
        pyramid, seen, proposals = self.see(pixels, content)
        return self.encoded(proposals, self.prototypes(pyramid, seen.maps[0]))

    def encoded(self, proposals: Proposals, prototypes: Tensor) -> EncodedImage:
        """What phrases are asked of."""
        tokens, where = self.tokens(proposals)
        return EncodedImage(tokens, where, proposals.boxes, proposals.scores, proposals.valid, prototypes)


class Looks(nn.Module):
    """A proposal's features to one vector; each part is normalised by itself, as their scales differ.

    In training whole parts are left out of an image now and then, so that none is relied on alone.
    """

    def __init__(self, widths: dict[str, int], dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.widths = list(widths.values())
        self.norms = nn.ModuleList(nn.LayerNorm(width) if width > 1 else nn.Identity() for width in self.widths)
        self.project = nn.Sequential(nn.Linear(sum(self.widths), 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor) -> Tensor:
        """[B, Q, F] to [B, Q, D]."""
        parts = features.to(self.norm.weight.dtype).split(self.widths, -1)
        normed = [norm(part) for norm, part in zip(self.norms, parts, strict=True)]
        if self.training and self.dropout:
            kept = F.dropout(features.new_ones(len(normed), len(features), 1, 1), self.dropout)
            normed = [one * part for one, part in zip(kept.to(normed[0].dtype), normed, strict=True)]
        return self.norm(self.project(torch.cat(normed, -1)))


def places_of(boxes: Tensor, content: Tensor) -> Tensor:
    """Where boxes [B, Q, 4] stand in the picture [B, 4]: xyxy, width and height as fractions of it, [B, Q, 6]."""
    low, size = content[:, None, :2], (content[:, None, 2:] - content[:, None, :2]).clamp(min=1e-6)
    corners = torch.cat([(boxes[..., :2] - low) / size, (boxes[..., 2:] - low) / size], -1).clamp(0, 1)
    return torch.cat([corners, corners[..., 2:] - corners[..., :2]], -1)


class Fusion(nn.Module):
    """Multi-grained CA²M: three groups, each with its own grain of words, then merged. SMCIM section III-C."""

    def __init__(self, config: DeixisConfig) -> None:
        super().__init__()
        small, merged = config.group_dim, config.merge_dim
        self.textual_in = nn.ModuleList(nn.Linear(config.text_dim, small) for _ in range(3))
        group: dict[str, Any] = {"dim": small, "heads": config.group_heads, "ffn_dim": config.ffn_ratio * small}
        self.groups = nn.ModuleList(
            nn.ModuleList(AlternateAttention(**group, dropout=config.dropout) for _ in range(config.group_layers))
            for _ in range(3)
        )
        sizes: dict[str, Any] = {"dim": merged, "heads": config.merge_heads, "ffn_dim": config.ffn_ratio * merged}
        layers = range(config.merge_layers)
        self.merge = nn.ModuleList(AlternateAttention(**sizes, dropout=config.dropout) for _ in layers)
        self.compare = nn.ModuleList(AttentionBlock(**sizes, dropout=config.dropout) for _ in layers)
        self.modulate = nn.ModuleList(nn.Linear(merged, 2 * merged) for _ in layers)
        for linear in self.modulate:
            nn.init.zeros_(linear.weight)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(linear.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, image: EncodedImage, words: list[Tensor], token_valid: Tensor) -> tuple[Tensor, Tensor]:
        """``image`` of P rows and three grains [P, T, D] to visual [P, Q, M] and textual [P, T, M]."""
        visual, textual = attend_in_groups(
            lambda layer, visual, textual: layer(visual, textual, image.valid, token_valid),
            self.groups, self.textual_in, image.tokens.chunk(3, -1), words,
        )  # fmt: skip
        visual = visual + image.where
        for modulate, layer, compare in zip(self.modulate, self.merge, self.compare, strict=True):
            gain, shift = modulate(masked_mean(textual, token_valid)).chunk(2, -1)  # the product of MCN Eq. 1
            visual = visual * (1 + gain) + shift
            visual, textual = layer(visual, textual, image.valid, token_valid)
            visual = compare(visual, visual, image.valid)  # those that fit the words: "second from the left"
        return visual, textual


def masked_mean(tokens: Tensor, valid: Tensor) -> Tensor:
    """The mean [P, 1, D] of the tokens [P, T, D] where ``valid`` [P, T]."""
    weight = valid.to(tokens.dtype)[..., None]
    return (tokens * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)


class BoxBranch(nn.Module):
    """Which token is meant, and each token's box refined."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.choice = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))
        self.refine = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 4))
        nn.init.zeros_(self.refine[2].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.refine[2].bias)  # pyright: ignore[reportArgumentType]

    def forward(self, visual: Tensor, image: EncodedImage) -> tuple[Tensor, Tensor]:
        """``visual`` [P, Q, M] to choice logits float32 [P, Q] and boxes xyxy float32 [P, Q, 4]."""
        logits = self.choice(visual).squeeze(-1).float().masked_fill(~image.valid, -torch.inf)
        return logits, refined(image.proposals, self.refine(visual).float())


def refined(boxes: Tensor, change: Tensor) -> Tensor:
    """Boxes xyxy [..., 4] moved by ``change`` [..., 4]: the centre in their sizes, the sizes by a logarithm."""
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-4)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 + change[..., :2] * size
    return xyxy_around(centre, size * change[..., 2:].clamp(-_LONGEST_LOG, _LONGEST_LOG).exp())


class Prototypes(nn.Module):
    """Maps at stride 4 that masks are drawn from, without any words."""

    def __init__(self, config: DeixisConfig, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        wide, thin = 2 * config.mask_dim, config.mask_dim
        self.lateral8 = nn.Conv2d(channels[1], wide, 1)
        self.lateral4 = nn.Conv2d(channels[0], thin, 1)
        self.level8 = nn.Conv2d(WIDTH, wide, 1)
        self.refine8 = nn.Conv2d(wide, thin, 3, padding=1)
        self.refine4 = nn.Conv2d(thin, thin, 3, padding=1)
        self.out = nn.Conv2d(thin, thin, 1)

    def forward(self, pyramid: Pyramid, level8: Tensor) -> Tensor:
        """[B, mask_dim, S/4, S/4]."""
        x = self.refine8(F.relu(self.level8(level8) + self.lateral8(pyramid.stride8)))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear") + self.lateral4(pyramid.stride4)
        return self.out(F.relu(self.refine4(F.relu(x))))


class MaskBranch(nn.Module):
    """A token's pixels: three 1x1 convolutions that are made from the token (CondInst, Tian et al., ECCV 2020)."""

    _hidden = 8

    def __init__(self, config: DeixisConfig) -> None:
        super().__init__()
        inputs, hidden = config.mask_dim + 4, self._hidden
        self.shapes = [(hidden, inputs), (hidden, hidden), (1, hidden)]
        self.filters = nn.Linear(config.merge_dim, sum(rows * columns + rows for rows, columns in self.shapes))

    def forward(self, token: Tensor, box: Tensor, prototypes: Tensor) -> Tensor:
        """``token`` [P, M], its ``box`` [P, 4] and ``prototypes`` [P, C, h, w] to mask logits float32 [P, h, w]."""
        x = torch.cat([prototypes, places_in(box, prototypes)], 1).flatten(2)
        sizes = [rows * columns + rows for rows, columns in self.shapes]
        parts = self.filters(token).split(sizes, -1)
        for index, (part, (rows, columns)) in enumerate(zip(parts, self.shapes, strict=True)):
            weight = part[:, : rows * columns].unflatten(-1, (rows, columns))
            x = weight @ x + part[:, rows * columns :, None]
            x = F.relu(x) if index < len(parts) - 1 else x
        return x.squeeze(1).unflatten(-1, prototypes.shape[-2:]).float()


def places_in(box: Tensor, like: Tensor) -> Tensor:
    """Where each cell of ``like`` [P, C, h, w] stands as seen from the box [P, 4]: [P, 4, h, w].

    x and y from its middle in its sizes, kept within -2..2, and how far outside of it each lies, 0..1.
    """
    height, width = like.shape[-2:]
    x, y = grid_places(width, like), grid_places(height, like)
    middle, size = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]).clamp(min=1e-4)
    across = ((x - middle[:, :1]) / size[:, :1]).clamp(-2, 2)[:, None, :].expand(-1, height, -1)
    down = ((y - middle[:, 1:]) / size[:, 1:]).clamp(-2, 2)[:, :, None].expand(-1, -1, width)
    outside = [(one.abs() * 2 - 1).clamp(0, 1) for one in (across, down)]
    return torch.stack([across, down, *outside], 1).to(like.dtype)


class DeixisModel(GroundingModel):
    """Image and phrases to boxes, masks and existence."""

    config: DeixisConfig
    score_weights = (0.5, 0.0, 0.5, 0.0, 0.0)
    mask_stride = 4
    stores_int8 = True
    canvas_note = "enlarged where the image is smaller"
    adapts_canvas = False

    def __init__(self, config: DeixisConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageSide(config)
        self.text = build_text_encoder(config)
        self.fusion = Fusion(config)
        self.box = BoxBranch(config.merge_dim)
        self.mask = MaskBranch(config)
        self.exists = nn.Sequential(
            nn.Linear(2 * config.merge_dim + 1, config.merge_dim), nn.GELU(), nn.Linear(config.merge_dim, 1)
        )

    def encode_image(self, pixels: Tensor, content: Tensor) -> EncodedImage:
        """``pixels`` [B, 3, S, S] RGB 0..1 on the letterboxed canvas; ``content`` [B, 4] fractions of it."""
        return self.image(pixels, content)

    def ground(self, scene: EncodedImage, token_ids: Tensor, token_valid: Tensor) -> Output:
        """``scene`` of P rows (see :meth:`EncodedImage.pick`) and P phrases [P, T]."""
        words = self.text(token_ids, token_valid)
        visual, textual = self.fusion(scene, words, token_valid)
        logits, boxes = self.box(visual, scene)
        chosen = (logits.softmax(-1)[..., None].to(visual.dtype) * visual).sum(1)
        highest = logits.amax(-1, keepdim=True).to(visual.dtype)
        return Output(
            choice_logits=logits,
            boxes=boxes,
            proposals=scene.proposals,
            scores=scene.scores,
            exists_logit=self.exists(torch.cat([textual[:, 0], chosen, highest / 8], -1)).squeeze(-1).float(),
            tokens=visual,
        )

    def masks(self, output: Output, token: Tensor, image: EncodedImage) -> Tensor:
        """Mask logits [P, S/4, S/4] of the tokens of number ``token`` [P], each seen from its own refined box."""
        rows = torch.arange(len(token), device=token.device)
        return self.mask(output.tokens[rows, token], output.boxes[rows, token].detach(), image.prototypes)

    def answer(self, scene: EncodedImage, token_ids: Tensor, token_valid: Tensor) -> Answer:
        """One answer for each phrase; its signs are existence, peak, consensus and the detector's score."""
        output = self.ground(scene, token_ids, token_valid)
        decoded = decode(output)
        score = output.scores.gather(1, decoded.token[:, None]).squeeze(1)
        signs = (check_signs(output.exists_logit), log_odds(decoded.peak), log_odds(decoded.consensus), log_odds(score))
        return Answer(
            boxes=decoded.boxes,
            mask_probability=self.masks(output, decoded.token, scene).sigmoid(),
            confidence=decoded.consensus,
            signs=torch.stack(signs, -1),
        )

    def attention(self, scene: EncodedImage, token_ids: Tensor, token_valid: Tensor) -> dict[str, Tensor]:
        """``box``: the probability of each token's choice, spread over its box; ``mask``: the mask's probability."""
        output = self.ground(scene, token_ids, token_valid)
        mask = self.masks(output, decode(output).token, scene).sigmoid()
        side = mask.shape[-1]
        return {"box": spread(output, side), "mask": mask / mask.sum((1, 2), keepdim=True).clamp(min=1e-9)}

    def load_pretrained(self, part: str, path: str | Path) -> None:
        """The whole image side from a NanoDet-Plus file, or the encoder below its neck; the BERT body."""
        if part == "text":
            assert isinstance(self.text, BertEncoder)
            self.text.load_pretrained(Path(path))
        elif Path(path).suffix == ".safetensors":
            self.image.load_nanodet(Path(path))
        else:
            self.image.encoder.load_pretrained(path)

    def load_word_vectors(self, vectors: Tensor) -> None:
        """See :class:`GroundingModel`."""
        if isinstance(self.text, BertEncoder):
            super().load_word_vectors(vectors)
        else:
            self.text.load_vectors(vectors)

    @property
    def image_encoder(self) -> nn.Module:
        """See :class:`GroundingModel`."""
        return self.image.encoder

    def pretrained_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The image encoder with the detector, and the BERT body."""
        text = [*self.text.bert.parameters()] if isinstance(self.text, BertEncoder) else []
        detector = (self.image.encoder, self.image.neck, self.image.head)
        return {"image": [p for part in detector for p in part.parameters()], "text": text}

    def frozen_parameters(self, *, image_pretrained: bool) -> list[nn.Parameter]:
        """The word tables, and a pretrained encoder's filters of edges and colours."""
        early = self.image.encoder.early_parameters() if image_pretrained else []
        return [*early, *self.text.frozen_parameters()]


MODEL = DeixisModel


def decode(output: Output) -> Decoded:
    """The box that most of the probability agrees with, averaged with those that agree.

    Several tokens may stand for one thing and share its probability; so each token counts with all that agree with it.
    """
    probability = output.choice_logits.softmax(-1)
    same = box_iou(output.boxes[:, :, None], output.boxes[:, None]) > AGREES  # [P, Q, Q]
    support = (same * probability[:, None]).sum(-1)
    token = (support * probability.sqrt()).argmax(-1)
    agrees = probability * _row(same, token)
    consensus = agrees.sum(-1)
    boxes = (agrees[..., None] * output.boxes).sum(1) / consensus[:, None].clamp(min=1e-9)
    return Decoded(
        token=token,
        boxes=boxes.clamp(0, 1),
        peak=probability.gather(1, token[:, None]).squeeze(1),
        consensus=consensus.clamp(max=1),
    )


def _row(table: Tensor, index: Tensor) -> Tensor:
    """[P, Q, Q] to [P, Q]."""
    return table.gather(1, index[:, None, None].expand(-1, 1, table.shape[-1])).squeeze(1)


def spread(output: Output, side: int) -> Tensor:
    """The choice's probability as maps float32 [P, side, side] of sum 1: each token's share evenly over its box.

    A box too thin for the map's places has the one that its middle lies in.
    """
    steps = grid_places(side, output.proposals)
    low, high = output.proposals[..., None, :2], output.proposals[..., None, 2:]
    middle = ((low + high) / 2 * side).long().clamp(0, side - 1)
    covered = (steps[:, None] > low) & (steps[:, None] < high)
    x, y = covered.scatter(2, middle, True).float().unbind(-1)  # [P, Q, side] each
    share = output.choice_logits.softmax(-1) / (x.sum(-1) * y.sum(-1))
    return (y * share[..., None]).transpose(1, 2) @ x
