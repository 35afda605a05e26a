"""Recognition with a trained run: tokenizers, decoders, language models and published runs."""
