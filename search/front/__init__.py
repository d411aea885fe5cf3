"""The front: the operating points that no other dominates, and the choice of one of them."""
