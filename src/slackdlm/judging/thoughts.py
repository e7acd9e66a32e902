"""What of a judge's reply is the reply? Its thoughts are no part of it; a reply that speaks of their marks is."""

import re
from typing import Final

_OPEN: Final = (
    r"(?:<(?:think|thinking|thoughts?|reasoning|seed:think)>|\[THINK\]|◁think▷"
    r"|<\|begin_of_thought\|>|<\|START_THINKING\|>)"
)
_CLOSE: Final = (
    r"(?:</(?:think|thinking|thoughts?|reasoning|seed:think)>|\[/THINK\]|◁/think▷"
    r"|<\|end_of_thought\|>|<\|END_THINKING\|>)"
)
_QUOTE: Final = "[`\"'“”‘’]"
_LEADING = re.compile(_OPEN, re.I)
_CLOSING = re.compile(rf"(?<!{_QUOTE}){_CLOSE}|{_CLOSE}(?!{_QUOTE})", re.I)
_CLOSING_LINE = re.compile(rf"^[ \t]*{_CLOSE}|(?<!{_QUOTE}){_CLOSE}[ \t]*$", re.I | re.M)
_OPENING_LINE = re.compile(rf"^[ \t]*{_OPEN}[ \t]*$", re.I | re.M)
_PAIR = re.compile(rf"(?<!{_QUOTE}){_OPEN}(?:(?!{_OPEN}).)*?{_CLOSE}(?!{_QUOTE})", re.I | re.S)
_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.S)
_CHANNEL = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>|analysis(?=[A-Z])")
_FINAL = re.compile(r"<\|channel\|>final[^\n]{0,40}?<\|message\|>|assistantfinal")
_END = re.compile(r"<\|(?:end|return|call)\|>")


def strip_thoughts(text: str) -> str:
    """A reply without its thoughts; empty if the judge was still thinking when it stopped.

    Thoughts open the reply, in the marks of any family of models, or stand between their marks further on; the opening
    mark may be missing, as it is part of some models' prompts. A closing mark without an opening one counts where it
    begins or ends a line. Marks in quotes or in code are words about an answer, and so is an opening mark in the midst
    of a line that nothing closes.
    """
    text = text.strip()
    if _CHANNEL.match(text):  # gpt-oss; some servers leave the brackets of its marks out
        *before, final = _FINAL.split(text)
        return _END.split(final)[0].strip() if before else ""
    while True:
        if _LEADING.match(text):
            closing = _CLOSING.search(text)
            if closing is None:
                return ""
        else:
            # The same places, but nothing to be found inside code.
            blanked = _CODE.sub(lambda code: " " * len(code[0]), text)
            *_, closing = [None, *_CLOSING_LINE.finditer(blanked)]
            if closing is None:
                break
        text = text[closing.end() :].strip()
    if _OPENING_LINE.search(_PAIR.sub("", blanked)):
        return ""
    for pair in reversed(list(_PAIR.finditer(blanked))):
        text = text[: pair.start()] + text[pair.end() :]
    return text.strip()
