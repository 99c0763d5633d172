"""The room of the tiny model: two layers of random weights, a tokenizer and a LoRA adapter, made in seconds.

Run by the Python of the test server's environment: ``python tiny_model.py FOLDER`` writes FOLDER/tiny and
FOLDER/adapter. Nothing is downloaded; the tokenizer is trained on the repository's own pages. What the model says is
noise, but it is the same noise each time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HIDDEN, LAYERS, RANK = 64, 2, 4
WORDS = 2_048
SPECIAL = ("<|end|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
TEMPLATE = """\
{%- if tools %}<|im_start|>system
Tools, one JSON a line. A call is <tool_call>{"name": ..., "arguments": {...}}</tool_call>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def make_tokenizer(folder: Path, pages: list[Path]) -> int:
    """Train a byte-level tokenizer and write it to ``folder``; returns how many tokens it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train([str(page) for page in pages], trainer)
    marks = {"eos_token": "<|im_end|>", "pad_token": "<|end|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE, **marks)
    fast.save_pretrained(folder)
    return len(fast)


def make_model(folder: Path, tokens: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=tokens, hidden_size=HIDDEN, intermediate_size=128, num_hidden_layers=LAYERS, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32_768, bos_token_id=None, eos_token_id=2, pad_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def make_adapter(folder: Path) -> None:
    """A LoRA adapter that bends the attention of each layer, in the form that peft writes."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(11)
    weights = {}
    for layer in range(LAYERS):
        for part in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{part}"
            for side, shape in (("lora_A", (RANK, HIDDEN)), ("lora_B", (HIDDEN, RANK))):
                weights[f"{name}.{side}.weight"] = torch.randn(shape, generator=generator).to(torch.bfloat16)
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny", "r": RANK,
                    "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none", "target_modules": ["q_proj", "v_proj"]}),
        encoding="utf-8",
    )  # fmt: skip


def main(folder: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    make_model(folder / "tiny", make_tokenizer(folder / "tiny", pages))
    make_adapter(folder / "adapter")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
