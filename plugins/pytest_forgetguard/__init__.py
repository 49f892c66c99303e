"""The pytest plugin: `pytest --forgetguard base=X tuned=Y`.

An import package of its own, so that starting pytest imports neither forgetguard nor torch.
"""
