"""Word-level tokenizers with the marks and chat templates of real vision-language families."""

from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from stages.demonstration.questions import vocabulary

BEGIN, END, PAD, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"
_WORDS = ("user", "assistant", "system", "model", "User", "Assistant", ":", "-", "I", "here")
_TURNS = "{%- for message in messages -%}{%- set role = message['role'] -%}"
_PARTS = (
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{{- 'IMAGE' if part['type'] == 'image' else part['text'] -}}"
    "{%- endfor -%}{%- endif -%}"
)
_ASK = "{%- endfor -%}{%- if add_generation_prompt -%}"

LLAVA = (
    "{{- bos_token -}}" + _TURNS + "{{- 'assistant :' if role == 'assistant' else 'user :' -}}"
    "{{- ' ' -}}"
    + _PARTS.replace("IMAGE", "<image>")
    + "{{- eos_token if role == 'assistant' else ' ' -}}"
    + _ASK
    + "{{- 'assistant : ' -}}{%- endif -%}"
)
IDEFICS = (
    "{{- '<|im_start|>' -}}"
    + _TURNS
    + "{{- 'Assistant: ' if role == 'assistant' else 'User:' -}}"
    + _PARTS.replace("IMAGE", "<image>")
    + "{{- '<end_of_utterance>\n' -}}"
    + _ASK
    + "{{- 'Assistant: ' -}}{%- endif -%}"
)
CHATML = (
    _TURNS
    + "{{- '<|im_start|>' + role + '\n' -}}"
    + _PARTS.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    + "{{- '<|im_end|>\n' -}}"
    + _ASK
    + "{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
GEMMA = (
    "{{- bos_token -}}"
    + _TURNS
    + "{{- '<start_of_turn>' + ('model' if role == 'assistant' else role) + '\n' -}}"
    + _PARTS.replace("IMAGE", "<start_of_image>")
    + "{{- '<end_of_turn>\n' -}}"
    + _ASK
    + "{{- '<start_of_turn>model\n' -}}{%- endif -%}"
)


def tokenizer(marks: Sequence[str] = (), *, end: str = END, **named: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the demonstration's words and of ``marks``, each a token of its own.

    ``named`` marks become attributes, such as ``image_token``, as real tokenizers of the family have them.
    """
    special = list(dict.fromkeys((PAD, BEGIN, END, UNKNOWN, end, *marks, *named.values())))
    words = [*special, "\n\n", "\n", *dict.fromkeys((*vocabulary(), *_WORDS))]
    inner = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    inner.pre_tokenizer = Split(Regex(r"\n\n|\n|\w+|[^\w\s]"), behavior="removed", invert=True)
    inner.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=end,
        unk_token=UNKNOWN,
        additional_special_tokens=[mark for mark in special if mark not in (PAD, BEGIN, end, UNKNOWN)],
        extra_special_tokens=dict(named),
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
