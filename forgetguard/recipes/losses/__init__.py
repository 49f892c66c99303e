"""What the regularised recipes add to cross-entropy, one term a file; pure functions of tensors."""
