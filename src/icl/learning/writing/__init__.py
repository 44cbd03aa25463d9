"""Training sequences as ids: pieces that are tokenized once, labels, context and target."""
