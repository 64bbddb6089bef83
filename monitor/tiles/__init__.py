"""The ward on one screen: a tile for each bed, with a strip of one lead."""
