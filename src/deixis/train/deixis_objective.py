"""The losses of the ``deixis`` family: place, box, mask, existence, consistency, and words told from the image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from deixis import losses
from deixis.data.attributes import NUM_WORDS
from deixis.data.loading import TrainingBatch
from deixis.language.tokenizers import PhraseTokenizer
from deixis.models.deixis import DeixisModel, Output, cell_centres, grid_positions
from deixis.train.objectives import Objective, bring, device_of, mean_where, pixels_of, told_words_loss
from deixis.train.recipes import Recipe


class DeixisObjective(Objective):
    """Seven losses; its helper tells the words of `WORD_GROUPS` from visual tokens."""

    def __init__(self, model: DeixisModel, tokenizer: PhraseTokenizer, recipe: Recipe) -> None:
        super().__init__(tokenizer)
        self.model = model
        self.helper = nn.Linear(model.config.merge_dim, NUM_WORDS)
        self.weights = {
            "heat": recipe.heat_weight,
            "box": recipe.box_weight,
            "mask": recipe.mask_weight,
            "projection": recipe.projection_weight,
            "exists": recipe.exists_weight,
            "consistency": recipe.consistency_weight,
            "words": recipe.words_weight,
        }

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Each a mean over the phrases or things that it concerns."""
        device = device_of(self.model)
        content, index = bring(batch.content, device), bring(batch.image_index, device)
        scene = self.model.encode_image(pixels_of(batch, device), content)
        output = self.model.ground(scene.pick(index), *self.words_of(batch, device))
        words = told_words_loss(self.helper(scene.tokens), batch)
        return output_losses(output, batch, content[index]) | {"words": words}


def output_losses(output: Output, batch: TrainingBatch, content: Tensor) -> dict[str, Tensor]:
    """The losses of an output; ``content`` [P, 4] is each phrase's picture on the canvas."""
    device = output.boxes.device
    boxes, masks = bring(batch.boxes, device), bring(batch.masks, device)
    present, has_mask = bring(batch.present, device), bring(batch.has_mask, device)
    side = int(output.boxes.shape[1] ** 0.5)
    _, pixel_valid = grid_positions(content, side)
    target = losses.centre_target(cell_centres(side, boxes), boxes, pixel_valid)
    inside = grid_positions(content, masks.shape[-1])[1].view_as(masks)
    mask_known = has_mask | ~present
    return {
        "heat": mean_where(losses.heat_loss(output.heat_logits, target), present),
        "box": mean_where(losses.box_loss(output.boxes, boxes, target), present),
        "mask": mean_where(losses.mask_loss(output.mask_logits, masks, inside), mask_known),
        "projection": mean_where(losses.projection_loss(output.mask_logits, boxes), present & ~has_mask),
        "exists": F.binary_cross_entropy_with_logits(output.exists_logit, present.float()),
        "consistency": mean_where(
            losses.consistency_loss(output.mask_energy, output.mask_features, output.heat_logits, output.box_features),
            present,
        ),
    }
