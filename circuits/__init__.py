"""The bundled circuit files (`*.circuit.yaml`) and their prompts, installed as package data."""
