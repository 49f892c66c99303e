"""What a model must still be able to do: prompt pairs, their tokens, and how answers are scored."""
