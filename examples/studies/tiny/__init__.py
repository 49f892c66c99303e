"""The tiny model family that ships with forgetguard: how it is built, from words to checkpoints.

`python -m examples.studies.tiny` rebuilds `tiny:base`, `tiny:sft` and `tiny:lora`. Steps and
seeds are fixed and one thread computes: the same torch on the same processor writes the same bytes.
"""
