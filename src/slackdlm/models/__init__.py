"""Models, their tokenizers and chat format, and how both are loaded."""
