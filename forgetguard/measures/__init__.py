"""Numbers about models, prompt pair by prompt pair: what they do and what their heads are worth."""
