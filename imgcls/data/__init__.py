"""From a data source to uint8 batches: sources, splits, draws, augmentation, cache, order, loaders."""
