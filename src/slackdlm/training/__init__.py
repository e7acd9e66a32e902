"""Fine-tuning: recipe, data, draws, trainer, run folder."""
