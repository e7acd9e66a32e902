"""lm-eval's tasks (GSM8K, MMLU, GPQA, MBPP, ...) answered by our sampler; needs the extra ``harness``."""
