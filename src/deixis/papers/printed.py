"""All numbers that the papers print in their tables, figures and text: copied, never measured here."""

from __future__ import annotations

from dataclasses import dataclass

Printed = tuple[float | None, ...]
"""One number a column; None where the paper has none."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of a table against other methods."""

    method: str
    venue: str
    features: str
    """The backbone, as far as the table names it."""
    values: Printed
    """One for each split of the table."""

    @property
    def label(self) -> str:
        """As in the paper: method and backbone."""
        return f"{self.method}, {self.features}"


def _row(method: str, venue: str, features: str, *values: float | None) -> Published:
    return Published(method=method, venue=venue, features=features, values=values)


_ = None  # a dash in the tables below

MCN_TABLE_1 = {  # IoU, Acc@0.5, 0.6, 0.7, 0.8, 0.9, IE: RefCOCO val, DarkNet-53
    "none": (61.61, 73.95, 67.42, 56.39, 32.02, 4.72, 10.37),
    "crop": (61.19, 75.13, 68.88, 57.61, 32.42, 3.81, 7.91),
    "soft": (62.27, 75.92, 69.48, 58.21, 33.20, 5.11, 7.28),
    "adaptive": (62.44, 76.60, 70.33, 58.39, 33.68, 5.26, 6.65),
}

MCN_TABLE_2 = {  # Base, +TextAtt, +GARAN, +CEM, +ASNLS: REC Acc@0.5, RES IoU, IE
    "RefCOCO val": (
        (77.45, 58.24, 13.80),
        (77.65, 58.44, 13.44),
        (79.20, 59.07, 13.37),
        (80.08, 61.61, 10.37),
        (80.08, 62.44, 6.65),
    ),
    "RefCOCO+ val": (
        (62.74, 44.08, 20.70),
        (63.07, 44.38, 19.88),
        (66.22, 47.89, 17.12),
        (67.16, 49.55, 13.51),
        (67.16, 50.62, 7.54),
    ),
    "RefCOCOg val-u": (
        (62.29, 44.58, 19.87),
        (64.51, 46.58, 18.71),
        (65.98, 47.33, 17.44),
        (66.46, 48.56, 14.90),
        (66.46, 49.22, 9.41),
    ),
}

MCN_TABLE_3 = {  # structure: REC Acc@0.5, RES IoU on RefCOCO val
    "single-rec-13": (70.38, _),
    "single-rec-52": (68.58, _),
    "single-res-13": (_, 36.37),
    "single-res-52": (_, 57.91),
    "only-head-different-13": (72.42, 34.50),
    "only-head-different-52": (_, 58.08),
    "only-backbone-shared": (75.81, 58.16),
    "mcn": (77.45, 58.24),
}

SMCIM_TABLE_3 = {  # visual x linguistic features: Acc@0.5 on RefCOCOg-google val
    ("One", "One"): 66.52,
    ("Three", "One"): 70.08,
    ("One", "Three"): 70.16,
    ("Three", "Two"): 72.48,
    ("Two", "Three"): 72.61,
    ("Three", "Three"): 72.86,
}
SMCIM_TABLE_4 = {  # blocks of grouping, of merging: Acc@0.5 on RefCOCOg-google val
    (3, 1): 69.60, (3, 2): 71.89, (6, 1): 71.78, (6, 2): 72.59, (0, 9): 71.72, (6, 3): 72.86,
}  # fmt: skip
SMCIM_TABLE_5_ENCODER = (82.68, 85.81, 77.35, 71.84, 77.60, 62.38, 70.83, 72.04, 72.30, 71.43)
SMCIM_TABLE_5_CA2M = (84.71, 87.91, 79.49, 73.54, 79.26, 63.60, 73.87, 75.61, 74.91, 74.55)
"""Table V: Acc@0.5 on each split."""
SMCIM_WITHOUT_SPSIL = 72.86
"""On RefCOCOg-google val."""

MCN_TABLE_4 = (
    _row("MMI", "CVPR16", "vgg16", _, 64.90, 54.51, _, 54.03, 42.81, _, _),
    _row("CMN", "CVPR16", "vgg16", _, 71.03, 65.77, _, 54.32, 47.76, _, _),
    _row("Spe+Lis+Rl", "CVPR17", "frcnn-resnet101", 69.48, 73.71, 64.96, 55.71, 60.74, 48.80, 60.21, 59.63),
    _row("Spe+Lis+Rl", "CVPR17", "frcnn-resnet101", 68.95, 73.10, 64.85, 54.89, 60.04, 49.56, 59.33, 59.21),
    _row("ParalAttn", "CVPR18", "frcnn-vgg16", _, 75.31, 65.52, _, 61.34, 50.86, _, _),
    _row("LGRANs", "CVPR19", "frcnn-vgg16", _, 76.60, 66.40, _, 64.00, 53.40, _, _),
    _row("NMTree", "ICCV19", "frcnn-vgg16", 71.65, 74.81, 67.34, 58.00, 61.09, 53.45, 61.01, 61.46),
    _row("FAOA", "ICCV19", "darknet53", 71.15, 74.88, 66.32, 56.86, 61.89, 49.46, 59.44, 58.90),
    _row("MattNet", "CVPR18", "frcnn-resnet101", 76.40, 80.43, 69.28, 64.93, 70.26, 56.00, 66.67, 67.01),
    _row("MattNet", "CVPR18", "mrcnn-resnet101", 76.65, 81.14, 69.99, 65.33, 71.62, 56.02, 66.58, 67.27),
)
MCN_TABLE_4_OWN = (
    _row("MCN", "CVPR20", "vgg16", 75.98, 76.97, 73.09, 62.80, 65.24, 54.26, 62.42, 62.29),
    _row("MCN", "CVPR20", "darknet53", 80.08, 82.29, 74.98, 67.16, 72.86, 57.31, 66.46, 66.01),
)

MCN_TABLE_5 = (
    _row("DMN", "ECCV18", "resnet101", 49.78, 54.83, 45.13, 38.88, 44.22, 32.29, _, _),
    _row("RRN", "CVPR18", "resnet101", 55.33, 57.26, 53.93, 39.75, 42.15, 36.11, _, _),
    _row("CMSA", "CVPR19", "resnet101", 58.32, 60.61, 55.09, 43.76, 47.60, 37.89, _, _),
    _row("MattNet", "CVPR18", "mrcnn-resnet101", 56.51, 62.37, 51.70, 46.67, 52.39, 40.08, 47.64, 48.61),
    _row("NMTree", "ICCV19", "mrcnn-resnet101", 56.59, 63.02, 52.06, 47.40, 53.01, 41.56, 46.59, 47.88),
)
MCN_TABLE_5_OWN = (
    _row("MCN", "CVPR20", "vgg16", 57.33, 58.59, 57.23, 46.53, 48.68, 41.93, 46.95, 47.20),
    _row("MCN", "CVPR20", "darknet53", 62.44, 64.20, 59.71, 50.62, 54.99, 44.69, 49.22, 49.40),
)

SMCIM_TABLE_1 = (
    _row("MCN", "CVPR20", "DarkNet-53/GRU", 80.08, 82.29, 74.98, 67.16, 72.86, 57.31, _, 66.46, 66.01, _),
    _row("RT*", "NeurIPS21", "ResNet-101/BERT", 82.23, 85.59, 76.57, 71.58, 75.96, 62.16, _, 69.41, 69.40, 71.42),
    _row("PFOS*", "TMM22", "ResNet-101/BERT", 78.44, 81.94, 73.61, 65.86, 72.43, 55.26, 64.53, 67.89, 67.63, 67.90),
    _row("MAttNet", "CVPR18", "ResNet-101/LSTM", 76.65, 81.14, 69.99, 65.33, 71.62, 56.02, _, 66.58, 67.27, 29.04),
    _row("RvG-Tree", "TPAMI19", "ResNet-101/LSTM", 75.06, 78.61, 69.85, 63.51, 67.45, 56.66, _, 66.95, 66.51, _),
    _row("CM-Att-Erase", "CVPR19", "ResNet-101/LSTM", 78.35, 83.14, 71.32, 68.09, 73.65, 58.03, _, 67.99, 68.67, _),
    _row("Ref-NMS", "AAAI21", "ResNet-101/GRU", 80.70, 84.00, 76.04, 68.25, 73.68, 59.42, _, 70.55, 70.62, _),
    _row("FAOA", "ICCV19", "DarkNet-53/BERT", 72.54, 74.35, 68.50, 56.81, 60.23, 49.60, 56.12, 61.33, 60.36, 60.67),
    _row("RCCF", "CVPR20", "DLA-34/LSTM", _, 81.06, 71.85, _, 70.35, 56.32, _, _, 65.73, 63.79),
    _row(
        "ReSC-Large", "ECCV20", "DarkNet-53/BERT", 77.63, 80.45, 72.30, 63.59, 68.36, 56.81, 63.12, 67.30, 67.20, 64.60
    ),
    _row("RealGIN", "TNNLS21", "DarkNet-53/GRU", 77.25, 78.70, 72.10, 62.78, 67.17, 54.21, _, 62.75, 62.33, _),
    _row("TransVG", "ICCV21", "ResNet-101/BERT", 81.02, 82.72, 78.35, 64.82, 70.70, 56.94, 67.02, 68.67, 67.73, 70.73),
    _row("VGTR", "ICME22", "ResNet-101/LSTM", 79.30, 82.16, 74.38, 64.40, 70.85, 55.84, 64.05, 66.83, 67.28, _),
    _row("SeqTR", "ECCV22", "DarkNet-53/GRU", 81.23, 85.00, 76.08, 68.82, 75.37, 58.78, _, 71.35, 71.58, 69.66),
    _row("Word2Pix", "TNNLS22", "ResNet-101/BERT", 81.20, 84.39, 78.12, 69.74, 76.11, 61.24, _, 70.81, 71.34, _),
    _row("PLV-FPN*", "TIP22", "ResNet-101/BERT", 81.93, 84.99, 76.25, 71.20, 77.40, 61.08, _, 70.45, 71.08, 71.77),
)
SMCIM_TABLE_1_OWN = (
    _row("SMCIM", "TIP24", "ResNet-50/BERT", 84.71, 87.91, 79.49, 73.54, 79.26, 63.60, 73.87, 75.61, 74.91, 74.55),
    _row("SMCIM", "TIP24", "ResNet-101/BERT", 85.10, 88.23, 80.08, 74.44, 79.48, 65.21, 74.50, 77.25, 75.78, 75.18),
)

SMCIM_TABLE_2 = (
    _row("VilBERT", "NeurIPS19", "ResNet-101/BERT, 3.3M images", _, _, _, 72.34, 78.52, 62.61, _, _),
    _row("UNITER-L", "ECCV20", "ResNet-101/BERT, 4.6M images", 81.41, 87.04, 74.17, 75.90, 81.45, 66.70, 74.86, 75.77),
    _row(
        "VILLA-L", "NeurIPS20", "ResNet-101/BERT, 4.6M images", 82.39, 87.48, 74.84, 76.17, 81.54, 66.84, 76.18, 76.71
    ),
    _row("ERNIE-ViL-L", "AAAI21", "ResNet-101/BERT, 4.3M images", _, _, _, 75.89, 82.37, 66.91, _, _),
    _row("MDETR", "ICCV21", "ResNet-101/RoBERTa, 200K images", 86.75, 89.58, 81.41, 79.52, 84.09, 70.62, 81.64, 80.89),
    _row("SeqTR", "ECCV22", "DarkNet-53/GRU, 174K images", 87.00, 90.15, 83.59, 78.69, 84.51, 71.87, 82.69, 83.37),
)
SMCIM_TABLE_2_OWN = (
    _row("SMCIM", "TIP24", "ResNet-50/BERT, 174K images", 89.15, 91.64, 86.18, 81.49, 86.36, 75.31, 84.23, 84.46),
    _row("SMCIM", "TIP24", "ResNet-101/BERT, 174K images", 89.60, 92.26, 86.69, 82.47, 87.32, 75.54, 85.40, 85.25),
)

SMCIM_FIG_5_OVER_TRANSVG = {
    "RefCOCO": (5.91, 3.99, 5.47, 4.73),
    "RefCOCO+": (5.95, 9.59, 9.89, 8.22),
    "RefCOCOg": (8.12, 7.46, 9.24, 7.71),
    "ReferItGame": (1.99, 5.41, 6.68, 8.69),
}
"""SMCIM section IV-C: points above TransVG, from short to long phrases; the values of the bars are not in its text."""

SMCIM_FIG_2_OWN = {"smcim-r50": (31.5, 73.54, 81.49), "smcim-r101": (24.6, 74.44, 82.47)}
"""Images a second on a GTX 1080 Ti; Acc@0.5 on RefCOCO+ val without and with large-scale pre-training."""
