"""Which special tokens of a conversation are tokens? Those that the chat template writes.

Never those a message spells: while the template is at work, a mark breaks every special token that
a message spells, alone or with its neighbours.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any, cast

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import DataError
from slackdlm.models.special_tokens import ALL_ROLES, NAMED_TOKENS
from slackdlm.models.tokenizer import encode_text

_CACHED = 1024


class TemplateTokens:
    """Ids of rendered conversations, in which special tokens that messages spell are text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        added = {t.content: (i, t) for i, t in tokenizer.added_tokens_decoder.items()}
        self._special = {
            name: (i, t) for name, (i, t) in added.items() if t.special or name in NAMED_TOKENS
        }
        names = sorted(self._special, key=len, reverse=True)
        self.spelled = re.compile("|".join(map(re.escape, names)) or "(?!)")
        """Finds special tokens in a text."""
        self._heads = {name[:n] for name in names for n in range(1, len(name))}
        self._tails = {name[n:] for name in names for n in range(1, len(name))}
        self._longest = max(map(len, names), default=0)
        self._run = lru_cache(_CACHED)(self._whole)

    def id_of(self, token: str) -> int:
        """The id of a special token."""
        return self._special[token][0]

    def mark(self, value: Any) -> tuple[str | None, Any]:
        """Messages and tools with a mark in what spells a special token; None if nothing does."""
        if _changed(value, lambda text: self._broken(text, "\ue000")) == value:
            return None, value
        texts: list[str] = []
        _changed(value, lambda text: texts.append(text) or text)
        everything = "".join(texts)
        mark = next(c for c in map(chr, range(0xE000, 0xF8FF)) if c not in everything)
        return mark, _changed(value, lambda text: self._broken(text, mark))

    def ids(self, text: str, mark: str | None) -> list[int]:
        """The ids of a rendered text.

        Raises:
            DataError: If a word is not in the vocabulary, the text is not valid Unicode, or the
                tokenizer makes a special token of what the template did not write.
        """
        plain = text if mark is None else text.replace(mark, "")
        if plain.isascii() or plain == plain.encode(errors="ignore").decode():
            ids = self._ids(text) if mark is None else self._ids_of_marked(text, mark)
            if ids is not None and self._tokenizer.unk_token_id not in ids:
                return ids
        for run in self.spelled.split(text):
            encode_text(self._tokenizer, run if mark is None else run.replace(mark, ""))
        raise DataError("text: the tokenizer reads special tokens in it; remove them")

    def _ids(self, text: str) -> list[int]:
        """Run by run between special tokens, so that turns met before need not be cut again."""
        ids: list[int] = []
        start = 0
        for token in self.spelled.finditer(text) if self._cuts else ():
            token_id, flags = self._special[token[0]]
            if flags.lstrip or flags.rstrip or flags.single_word:
                return [*self._whole(text)]
            ids += self._run(text[start : token.start()]) if token.start() > start else ()
            ids.append(token_id)
            start = token.end()
        return [*ids, *self._run(text[start:])] if start < len(text) else ids

    def _whole(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _cuts(self) -> bool:
        """Whether text is cut alike at its start and behind a special token."""
        for name, (token_id, flags) in self._special.items():
            if not (flags.lstrip or flags.rstrip or flags.single_word):
                return self._whole(f"{name}x") == (token_id, *self._whole("x"))
        return False

    def _ids_of_marked(self, text: str, mark: str) -> list[int] | None:
        """None if there are special tokens that the template did not write."""
        twin, aliases, originals = self._twin
        text = self.spelled.sub(lambda spelled: aliases[spelled[0]], text).replace(mark, "")
        ids: list[int] = twin.encode(text, add_special_tokens=False).ids
        if {token_id for token_id, _ in self._special.values()}.isdisjoint(ids):
            return [originals.get(i, i) for i in ids]
        return None

    @cached_property
    def _twin(self) -> tuple[Tokenizer, dict[str, str], dict[int, int]]:
        """A tokenizer that knows special tokens by secret names; the names; its ids to ours."""
        twin = Tokenizer.from_str(self._tokenizer.backend_tokenizer.to_str())
        twin.no_padding()
        twin.no_truncation()
        twin.encode_special_tokens = True
        secret = secrets.token_hex(8)
        aliases: dict[str, str] = {}
        originals: dict[int, int] = {}
        for name, (token_id, flags) in self._special.items():
            aliases[name] = alias = f"<{secret}:{token_id}>"
            sides = {"lstrip": flags.lstrip, "rstrip": flags.rstrip}
            twin.add_tokens([AddedToken(alias, normalized=False, **sides)])
            originals[int(str(twin.token_to_id(alias)))] = token_id
        return twin, aliases, originals

    def _broken(self, text: str, mark: str) -> str:
        while (token := self.spelled.search(text)) is not None:
            if len(token[0]) == 1:
                raise DataError(
                    f"text: the tokenizer reads {[token[0]]} in it as special tokens; remove them"
                )
            text = self.spelled.sub(lambda spelled: spelled[0][0] + mark + spelled[0][1:], text)
        sizes = range(1, min(self._longest, len(text) + 1))
        if any(text[:n] in self._tails for n in sizes):
            text = mark + text
        if any(text[-n:] in self._heads for n in sizes):
            text += mark
        return text


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed, but for the roles of messages."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            _changed(k, change): v if k == "role" and v in ALL_ROLES else _changed(v, change)
            for k, v in cast("Mapping[Any, Any]", value).items()
        }
    if isinstance(value, list | tuple):
        return [_changed(item, change) for item in cast("list[Any]", value)]
    return value


def unmarked(value: Any, mark: str) -> Any:
    """What was marked, as it was."""
    return _changed(value, lambda text: text.replace(mark, ""))
