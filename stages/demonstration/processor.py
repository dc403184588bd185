"""The backbone's processor: a word-level tokenizer, a chat template and a CLIP image processor.

The image processor is the Pillow one: it needs no torchvision, and what it writes loads without torchvision
too.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "<user>", "<assistant>")
PAD, START, END, UNKNOWN, IMAGE, USER, ASSISTANT = SPECIAL
CHAT_TEMPLATE = """\
{%- macro content_of(message) -%}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for part in message['content'] -%}
      {{- '<image>' if part['type'] == 'image' else part['text'] -}}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message['role'] == 'assistant' -%}
    {{- '<assistant>' -}}{%- generation -%}{{- content_of(message) + eos_token -}}{%- endgeneration -%}
  {%- else -%}
    {{- '<user>' + content_of(message) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}"""

Words = Sequence[str]
"""A vocabulary: the index of a word is its token id."""


def complete(words: Words) -> list[str]:
    """Return the vocabulary: the special tokens, then the words."""
    return [*SPECIAL, *words]


def build_processor(vocabulary: Words, image_size: int, patch_size: int) -> LlavaProcessor:
    """Return the processor for a vocabulary made by `complete`.

    Guarantee: one image becomes (image_size / patch_size)^2 placeholders. The tower's class token counts as
    the one additional token that the "default" strategy drops again.
    """
    model = WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token=UNKNOWN)
    words = Tokenizer(model)
    words.normalizer = Lowercase()
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE, USER, ASSISTANT],
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
    square = {"height": image_size, "width": image_size}
    image_processor = CLIPImageProcessorPil(
        size=square, crop_size=square, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
