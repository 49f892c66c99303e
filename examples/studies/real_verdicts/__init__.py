"""The gate on a pretrained model with known damage: are its verdicts right, and the place too?"""
