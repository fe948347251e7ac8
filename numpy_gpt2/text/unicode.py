"""Unicode's late letters: those that count as letters in `regex`, but not in the tokenizers of OpenAI and Hugging Face.

Unicode grows every year, and `regex` follows it. tiktoken and Hugging Face's tokenizers are at version 16.0.
"""

from __future__ import annotations

import regex

# Letters and numbers that came after Unicode 16.0.
LATE = regex.compile(
    "[\u0558\u058b-\u058c\u088f\u0c5c\u0cdc\u208f\u209d-\u209f\ua7ce-\ua7cf\ua7d2\ua7d4\ua7dd-\ua7f1\uab6c-\uab6d"
    "\U000107bb-\U000107bf\U00010940-\U00010959\U00010ec5-\U00010eee\U00011b0a\U00011db0-\U00011df1"
    "\U0001246f-\U0001247f\U00012550-\U00012686\U00016ea0-\U00016ed3\U00016ff2-\U00016ff6"
    "\U000187f8-\U000187ff\U00018cd6-\U00018cda\U00018d09-\U000191d2\U0001b123-\U0001b128\U0001b168"
    "\U0001d6a6\U0001df1f-\U0001df24\U0001df2b-\U0001dfff\U0001e6c0-\U0001e6ff"
    "\U0002b73a-\U0002b73f\U0002b81e\U0002cea2-\U0002cead\U000323b0-\U0003fc3f]"
)


def as_of_unicode_16(text: str) -> str:
    """The text with U+FFFD, which is a symbol, in place of every late letter; itself if there is none.

    The length stays the same, so a place in the result is the same place in the text.
    """
    if text.isascii() or not LATE.search("".join({*text})):  # the distinct characters are few, also of a long text
        return text
    return LATE.sub("\N{REPLACEMENT CHARACTER}", text)
