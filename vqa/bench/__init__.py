"""`vqa bench train`: the data path and the training step, beside the usual way of each and beside what bounds them."""
