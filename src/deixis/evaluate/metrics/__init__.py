"""Metrics of referring expressions: per-sample scores, and tallies that hold only exact sums and counts.

What the figures mean, all of them fractions in 0..1 over (image, phrase) pairs at the original resolution:

- Accuracy: the share of samples whose IoU is *strictly* greater than the threshold, as both papers write it
  (MCN section 4.2, SMCIM section IV-A). Boxes are compared with continuous edges, not with "+ 1 pixel".
- ``mean_iou`` (boxes) and ``miou`` (masks): the mean of the samples' IoU. ``oiou``: the sum of all intersections
  over the sum of all unions, which gives large targets more weight. Tables that say only "IoU" mean one or the other.
- ``ie``, inconsistency error (MCN section 4.2): the share of samples where exactly one of box and mask is right,
  right being IoU > 0.5; split into ``ie_box_only`` and ``ie_mask_only``.
- A sample whose phrase means nothing in the image enters ``no_target_accuracy``: the share of them where the model
  says so; and, with the others, the figures of generalised referring, see `deixis.evaluate.metrics.sums`.

Two masks that are both empty have IoU 1, and a union summed over empty masks only gives an ``oiou`` of 1. A part that
the data or the model lacks is None, never 0.
"""

from deixis.evaluate.metrics.sums import BOX_THRESHOLDS, MASK_THRESHOLDS, RIGHT, SampleScore, Tally, score_sample

__all__ = ["BOX_THRESHOLDS", "MASK_THRESHOLDS", "RIGHT", "SampleScore", "Tally", "score_sample"]
