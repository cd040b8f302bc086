"""From paths to predictions, without torch: inputs, decoding pool, softmax and top-k in numpy."""
