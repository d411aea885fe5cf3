"""The front: operating points, which of them no other dominates, and which to choose."""
