"""The overall loss of the ``mcn`` family. MCN Eq. 12."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from deixis.data.attributes import NUM_WORDS
from deixis.language.tokenizers import PhraseTokenizer
from deixis.models import losses
from deixis.models.encoders.darknet import ThreeScales
from deixis.models.mcn.garan import Attended
from deixis.models.mcn.model import McnModel, McnOutput
from deixis.models.mcn.yolo import anchors_as_fractions
from deixis.structures import TrainingBatch
from deixis.train.objectives import Objective, bring, device_of, mean_where, pixels_of, told_words_loss
from deixis.train.recipes import Recipe


def expected_consistency(output: McnOutput) -> Tensor:
    """`losses.consistency_loss` [P] of the two branches. MCN Eq. 5 to 9."""
    means = [attended.mean_direction(energy) for energy, attended in _energies_and_features(output)]
    return losses.co_energy_loss(*means)


def literal_consistency(output: McnOutput) -> Tensor:
    """`losses.consistency_literal` [P] of the two branches. MCN Eq. 9."""
    (res_energy, res), (rec_energy, rec) = _energies_and_features(output)
    return losses.consistency_literal(res_energy, res.rows(), rec_energy, rec.rows())


CEM_FORMS = {"expected": expected_consistency, "literal": literal_consistency}


class ToldWords(nn.Module):
    """Kind, colour and texture of what lies at a cell of stride 16, told from the encoder alone; only for training.

    The paper's encoder has learnt to detect on the photos' own kind; on drawn scenes this does that work.
    """

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.middle = nn.Conv2d(channels[1], NUM_WORDS, 1)
        self.coarse = nn.Conv2d(channels[2], NUM_WORDS, 1)

    def forward(self, maps: ThreeScales) -> Tensor:
        """Logits [B, cells, words]."""
        logits = self.middle(maps.stride16) + F.interpolate(self.coarse(maps.stride32), scale_factor=2.0)
        return logits.flatten(2).transpose(1, 2)


class McnObjective(Objective):
    """Box, mask and consistency, each summed over cells as in the official code and averaged over the phrases."""

    def __init__(self, model: McnModel, tokenizer: PhraseTokenizer, recipe: Recipe) -> None:
        super().__init__(tokenizer)
        self.model = model
        self.cem = CEM_FORMS.get(model.config.cem)
        self.weights = {"xy": recipe.rec_weight, "wh": recipe.rec_weight, "confidence": recipe.rec_weight}
        self.weights |= {"mask": recipe.res_weight, "cem": recipe.cem_weight}
        if recipe.words_weight:
            self.weights["words"] = recipe.words_weight
            self.helper = ToldWords(model.encoder.channels)

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The parts that the model's structure has."""
        device = device_of(self.model)
        scene = self.model.encode_image(pixels_of(batch, device), bring(batch.content, device))
        phrases = scene.pick(bring(batch.image_index, device))
        parts = self.output_losses(self.model.ground(phrases, *self.words_of(batch, device)), batch)
        if isinstance(self.helper, ToldWords):
            parts["words"] = told_words_loss(self.helper(scene.maps), batch)
        return parts

    def output_losses(self, output: McnOutput, batch: TrainingBatch) -> dict[str, Tensor]:
        """The unweighted parts; a phrase without a mask takes no part in the mask's."""
        device = device_of(self.model)
        present, has_mask = bring(batch.present, device), bring(batch.has_mask, device)
        parts: dict[str, Tensor] = {}
        if output.box_logits is not None:
            anchors = anchors_as_fractions(self.model.config.anchors_px, device=device)
            each = losses.yolo_loss(output.box_logits, bring(batch.boxes, device), anchors, present)
            parts |= {name: value.mean() for name, value in each.items()}
        if output.mask_logits is not None:
            each = losses.segmentation_loss(output.mask_logits, bring(batch.masks, device))
            parts["mask"] = mean_where(each, has_mask | ~present)
        if self.cem is not None:
            parts["cem"] = mean_where(self.cem(output), present)
        return parts


def _energies_and_features(output: McnOutput) -> tuple[tuple[Tensor, Attended], tuple[Tensor, Attended]]:
    """Energies and F_att of the mask branch and of the box branch."""
    assert output.res_energy is not None
    assert output.rec_energy is not None
    assert output.res_attended is not None
    assert output.rec_attended is not None
    return (output.res_energy, output.res_attended), (output.rec_energy, output.rec_attended)
