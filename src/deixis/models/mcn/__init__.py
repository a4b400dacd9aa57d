"""MCN, the Multi-task Collaborative Network (CVPR 2020)."""
