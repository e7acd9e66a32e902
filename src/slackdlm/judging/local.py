"""A judge on this machine: any causal language model of ``transformers``, from safetensors, without remote code."""

import hashlib
from typing import Any, cast

import jinja2
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from slackdlm.benchmarks.alpaca_eval import NUM_ALTERNATIVES, FirstToken, write_first_token
from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.journal import content_hash
from slackdlm.judging.judges import CUT_OFF, Call, CallFailed, Judge, Reply
from slackdlm.judging.thoughts import strip_thoughts
from slackdlm.judgments import Messages
from slackdlm.models.hub import locate
from slackdlm.models.identity import weights_sha256


class LocalJudge(Judge):
    """A causal language model in memory.

    Args:
        name_or_path: Folder or hub id.
        temperature: 0 is greedy; else sampling, seeded by each prompt's content, so that order changes nothing.
        max_tokens: Longest reply, thoughts included.
        seed: Of sampling.
        device: Where it runs; default the CPU.
        dtype: Of the weights; default as in the checkpoint.

    Raises:
        CheckpointError: If there is no such model, or its weights are not safetensors.
        ConfigError: If ``temperature`` or ``max_tokens`` cannot be used.
    """

    def __init__(
        self,
        name_or_path: str,
        *,
        temperature: float = 0.0,
        max_tokens: int = 2048,
        seed: int = 0,
        device: str = "cpu",
        dtype: str = "auto",
    ) -> None:
        if not 0 <= temperature < float("inf") or max_tokens < 1:
            raise ConfigError(
                f"judge: expected temperature >= 0 and max_tokens >= 1, got {temperature}, {max_tokens}"
            )
        self.name = name_or_path
        self.temperature, self.max_tokens, self.seed = temperature, max_tokens, seed
        folder = locate(name_or_path)
        try:
            # Left unsaid, transformers asks on the terminal whether to run a checkpoint's code.
            safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
            model = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, dtype=dtype, **safe
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error)
            if "trust_remote_code" in reason:
                reason = "it needs code of its own, and no code of a checkpoint is run"
            raise CheckpointError(
                f"{folder}: no usable causal language model ({reason})"
            ) from error
        self.tokenizer = cast("PreTrainedTokenizerBase", tokenizer)
        # An unknown word is no special token in this sense.
        added = self.tokenizer.added_tokens_decoder.items()
        unknown = self.tokenizer.unk_token_id
        self._special = {i for i, token in added if token.special and i != unknown}
        self.model = cast("PreTrainedModel", cast("Any", model).to(device).eval())
        self.settings = {
            "kind": "local",
            "temperature": temperature,
            "seed": seed,
            "weights_sha256": weights_sha256(self.model.state_dict().items()),
            "template_sha256": hashlib.sha256(self._template().encode()).hexdigest(),
        }

    @torch.inference_mode()
    def reply(self, call: Call) -> Reply:
        """The model's reply; a prompt too long for it is a failed call."""
        ids = self.encode(call.messages)
        room = getattr(self.model.config, "max_position_embeddings", None)
        if room is not None and len(ids) + self.max_tokens > room:
            raise CallFailed(
                f"the prompt has {len(ids)} tokens; with {self.max_tokens} of the reply that is more than "
                f"the judge's {room}",
                again=False,
            )
        if call.first_token:
            return Reply(self._first_token(ids), len(ids), 1, 0.0)
        sampling: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            sampling = {
                "do_sample": True,
                "temperature": self.temperature,
                "top_k": 0,
                "top_p": 1.0,
            }
        prompt = torch.tensor([ids], device=self.model.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(content_hash([ids, self.seed, call.order])[:15], 16))
            output: Any = cast("Any", self.model).generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=self.max_tokens,
                pad_token_id=self._pad_id(),
                **sampling,
            )
        said = output[0, len(ids) :]
        text = str(self.tokenizer.decode(said, skip_special_tokens=True))
        ended = int(said[-1]) in self._end_ids()
        return Reply(strip_thoughts(text), len(ids), len(said), 0.0, "" if ended else CUT_OFF)

    def _first_token(self, ids: list[int]) -> str:
        """The likeliest first token, whatever the temperature, and the next few."""
        logits = self.model(torch.tensor([ids], device=self.model.device)).logits[0, -1]
        top = logits.float().log_softmax(-1).topk(min(NUM_ALTERNATIVES, logits.shape[-1]))
        tokens = [str(self.tokenizer.decode([int(i)])) for i in top.indices]
        log_probs: dict[str, float] = {}
        for token, value in zip(tokens, top.values.tolist(), strict=True):
            log_probs.setdefault(token, value)
        return write_first_token(FirstToken(tokens[0], log_probs))

    def encode(self, messages: Messages) -> list[int]:
        """The ids of a prompt, whose contents are text alone: what spells a special token in them is none."""
        marks = [f"⟦{content_hash([n, self.seed])[:16]}⟧" for n in range(len(messages))]
        rendered = self._render(
            [{"role": t["role"], "content": m} for t, m in zip(messages, marks, strict=True)]
        )
        ids: list[int] = []
        for turn, mark in zip(messages, marks, strict=True):
            before, _, rendered = rendered.partition(mark)
            content = turn["content"].encode("utf-8", "replace").decode()
            said = self._encode(content, split_special_tokens=True)
            if not self._special.isdisjoint(said):
                raise CallFailed("the tokenizer reads special tokens in the texts", again=False)
            ids += self._encode(before) + said
        return ids + self._encode(rendered)

    def _encode(self, text: str, **options: Any) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, **options)["input_ids"])

    def _render(self, messages: list[dict[str, str]]) -> str:
        if self.tokenizer.chat_template is None:
            return "\n\n".join(message["content"] for message in messages) + "\n\n"
        try:
            rendered = self._apply(messages)
        except jinja2.TemplateError:
            if messages[0]["role"] != "system":
                raise
            rendered = ""
        if messages[0]["role"] == "system" and messages[0]["content"] not in rendered:
            # Some templates refuse a system turn or leave it out: its words open the user's.
            first, second, *others = messages
            merged = {"role": "user", "content": f"{first['content']}\n\n{second['content']}"}
            return self._apply([merged, *others])
        return rendered

    def _apply(self, messages: list[dict[str, str]]) -> str:
        return str(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )

    def _template(self) -> str:
        return str(self.tokenizer.chat_template or "")

    def _end_ids(self) -> list[int]:
        """The tokens with which the model ends a reply."""
        config: Any = self.model.generation_config
        ids: Any = getattr(config, "eos_token_id", None)
        return [] if ids is None else [int(i) for i in (ids if isinstance(ids, list) else [ids])]

    def _pad_id(self) -> int:
        """Of a padding that never happens, as prompts go one by one."""
        ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((int(cast("int", i)) for i in ids if i is not None), 0)
