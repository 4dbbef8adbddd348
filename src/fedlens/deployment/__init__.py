"""A federation of machines under different administrators, over NVIDIA FLARE."""
