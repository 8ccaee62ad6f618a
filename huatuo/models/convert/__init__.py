"""from a downloaded folder to a verified safetensors folder: `python -m huatuo.models.convert SOURCE OUT`."""
