"""Automatic structured pruning of Keras models during federated training with TFF."""
