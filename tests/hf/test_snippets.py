"""Code as tutorials have it, run twice: imported from transformers, and from layertap.hf. Same numbers.

Every snippet finds a BERT folder in BERT, a RoBERTa folder in ROBERTA, a folder to write to in OUT, and leaves what
it computed in `result`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SNIPPETS = {
    "quick start": """
from transformers import BertTokenizer, BertModel
tokenizer = BertTokenizer.from_pretrained(BERT)
model = BertModel.from_pretrained(BERT)
inputs = tokenizer("Hello, my dog is a good film", return_tensors="pt")
outputs = model(**inputs)
result = [outputs.last_hidden_state, outputs.pooler_output, outputs[0][:, 0, :], list(outputs.keys())]
""",
    "typed special tokens, segments, the last four layers": """
import torch
from transformers import BertTokenizer, BertModel
tokenizer = BertTokenizer.from_pretrained(BERT, do_lower_case=True)
text = "After stealing money from the bank, the actor was seen by the river bank."
marked_text = "[CLS] " + text + " [SEP]"
tokenized_text = tokenizer.tokenize(marked_text)
indexed_tokens = tokenizer.convert_tokens_to_ids(tokenized_text)
segments_ids = [1] * len(tokenized_text)
tokens_tensor = torch.tensor([indexed_tokens])
segments_tensors = torch.tensor([segments_ids])
model = BertModel.from_pretrained(BERT, output_hidden_states=True)
model.eval()
with torch.no_grad():
    outputs = model(tokens_tensor, token_type_ids=segments_tensors)
    hidden_states = outputs[2]
token_embeddings = torch.stack(hidden_states, dim=0)
token_embeddings = torch.squeeze(token_embeddings, dim=1).permute(1, 0, 2)
token_vecs_cat = [torch.cat((t[-1], t[-2], t[-3], t[-4]), dim=0) for t in token_embeddings]
token_vecs_sum = [torch.sum(t[-4:], dim=0) for t in token_embeddings]
sentence_embedding = torch.mean(hidden_states[-2][0], dim=0)
result = [tokenized_text, len(hidden_states), *token_vecs_cat, *token_vecs_sum, sentence_embedding]
""",
    "mean pooling of a model card": """
from transformers import AutoTokenizer, AutoModel
import torch
import torch.nn.functional as F
def mean_pooling(model_output, attention_mask):
    token_embeddings = model_output[0]
    input_mask_expanded = attention_mask.unsqueeze(-1).expand(token_embeddings.size()).float()
    return torch.sum(token_embeddings * input_mask_expanded, 1) / torch.clamp(input_mask_expanded.sum(1), min=1e-9)
sentences = ["This is an example sentence", "Each sentence is converted", ""]
tokenizer = AutoTokenizer.from_pretrained(BERT)
model = AutoModel.from_pretrained(BERT)
encoded_input = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    model_output = model(**encoded_input)
sentence_embeddings = mean_pooling(model_output, encoded_input["attention_mask"])
result = [F.normalize(sentence_embeddings, p=2, dim=1)]
""",
    "RoBERTa, a batch, every layer's first token": """
import torch
from transformers import RobertaModel, RobertaTokenizer, RobertaConfig
config = RobertaConfig.from_pretrained(ROBERTA, output_hidden_states=True)
tokenizer = RobertaTokenizer.from_pretrained(ROBERTA)
model = RobertaModel.from_pretrained(ROBERTA, config=config)
batch = tokenizer(["a good story", "dull"], padding="max_length", max_length=20, truncation=True, return_tensors="pt")
with torch.inference_mode():
    out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
result = [torch.stack([state[:, 0] for state in out.hidden_states]), out.pooler_output, model.config.hidden_size]
""",
    "a tuple unpacked": """
from transformers import AutoModel, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(BERT, use_fast=True)
model = AutoModel.from_pretrained(BERT)
sequence_output, pooled_output = model(
    **tokenizer("a film", "a movie", return_tensors="pt", max_length=16, truncation=True), return_dict=False
)
all_three = model(
    **tokenizer("a film", return_tensors="pt"), return_dict=False, output_hidden_states=True, output_attentions=False
)
result = [sequence_output, pooled_output, all_three[0], all_three[1], *all_three[2], len(all_three)]
""",
    "fine-tuning a classifier of one's own": """
import torch
from torch import nn
from transformers import BertModel, BertTokenizer
class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.bert = BertModel.from_pretrained(BERT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        self.classifier = nn.Linear(self.bert.config.hidden_size, 2)
    def forward(self, input_ids, attention_mask, token_type_ids):
        outputs = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return self.classifier(outputs.pooler_output)
torch.manual_seed(0)
model = Classifier()
tokenizer = BertTokenizer.from_pretrained(BERT)
for name, param in model.named_parameters():
    if name.startswith("bert.embeddings") or name.startswith("bert.encoder.layer.0."):
        param.requires_grad = False
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
texts, labels = ["a good film", "a bad and dull film", "funny"], torch.tensor([1, 0, 1])
batch = tokenizer(texts, padding=True, return_tensors="pt")
model.train()
result = []
for _ in range(5):
    loss = nn.functional.cross_entropy(model(**batch), labels)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    result.append(loss.item())
result.append(sum(p.numel() for p in model.parameters() if p.requires_grad))
""",
    "learning rates by layer": """
import torch
from transformers import RobertaModel
model = RobertaModel.from_pretrained(ROBERTA)
groups = [{"params": model.embeddings.parameters(), "lr": 1e-5}]
for i, layer in enumerate(model.encoder.layer):
    groups.append({"params": layer.parameters(), "lr": 1e-4 * (i + 1)})
groups.append({"params": model.pooler.parameters(), "lr": 1e-3})
optimizer = torch.optim.SGD(groups)
no_decay = ["bias", "LayerNorm.weight"]
decayed = sorted(n for n, p in model.named_parameters() if not any(nd in n for nd in no_decay))
model(torch.tensor([[0, 9, 10, 2]])).pooler_output.sum().backward()
optimizer.step()
result = [model(torch.tensor([[0, 9, 10, 2]])).pooler_output, len(optimizer.param_groups), decayed]
""",
    "a model from a config, saved and loaded": """
import torch
from transformers import BertConfig, BertModel
configuration = BertConfig(vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=3)
torch.manual_seed(1)
model = BertModel(configuration)
configuration = model.config
model.eval()
ids = torch.arange(6).unsqueeze(0)
before = model(ids).last_hidden_state
model.save_pretrained(OUT)
again = BertModel.from_pretrained(OUT)
result = [before, again(ids).last_hidden_state, configuration.num_attention_heads, again.config.hidden_size]
""",
    "weights with a prefix, not strictly": """
import torch
from transformers import BertModel
source = BertModel.from_pretrained(BERT)
stored = {"bert." + k: v for k, v in source.state_dict().items()} | {"classifier.weight": torch.zeros(2, 2)}
model = BertModel(source.config, add_pooling_layer=False)
found = model.load_state_dict({k[len("bert."):]: v for k, v in stored.items() if k.startswith("bert.")}, strict=False)
model.eval()
outputs = model(torch.tensor([[2, 9, 3]]), output_hidden_states=True)
result = [outputs[0], outputs[1][1], sorted(found.missing_keys), sorted(found.unexpected_keys)]
""",
    "embeddings instead of ids": """
import torch
from transformers import AutoModel, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(ROBERTA)
model = AutoModel.from_pretrained(ROBERTA)
ids = tokenizer.encode("good story", return_tensors="pt")
embeds = model.get_input_embeddings()(ids)
table = model.embeddings.word_embeddings.weight
embeds = (embeds + 0.1).detach().requires_grad_()
model(inputs_embeds=embeds).last_hidden_state.norm().backward()
result = [embeds.grad, table[ids[0]]]
""",
    "a data loader with a collator": """
import torch
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(BERT)
model = AutoModel.from_pretrained(BERT).eval()
texts = ["a film", "the good the bad and the funny", "story", "a dull movie that was"]
rows = [tokenizer(text, truncation=True, max_length=6) for text in texts]
def collate(rows):
    return tokenizer.pad(rows, padding=True, return_tensors="pt")
features = []
for batch in DataLoader(rows, batch_size=3, collate_fn=collate):
    batch = {k: v.to(model.device) for k, v in batch.items()}
    with torch.no_grad():
        features.append(model(**batch)[0][:, 0].cpu().numpy())
import numpy as np
result = [np.concatenate(features)]
""",
    "tokens to words": """
import torch
from transformers import AutoModel, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(BERT)
model = AutoModel.from_pretrained(BERT)
words = ["The", "banker", "was", "unfunny", "."]
encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
word_ids = encoded.word_ids()
with torch.no_grad():
    states = torch.stack(model(**encoded, output_hidden_states=True).hidden_states[-4:]).sum(0).squeeze()
result = [word_ids]
for i in range(len(words)):
    result.append(states[[j for j, w in enumerate(word_ids) if w == i]].mean(dim=0))
""",
    "characters to tokens": """
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(ROBERTA)
text = "A river bank, and money in it."
encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
begin = text.index("bank")
token = encoded.char_to_token(begin)
result = [encoded["offset_mapping"], encoded["special_tokens_mask"], token, encoded.tokens()[token],
          tokenizer.decode(encoded["input_ids"], skip_special_tokens=True)]
""",
    "bfloat16": """
import torch
from transformers import AutoModel
model = AutoModel.from_pretrained(BERT, torch_dtype=torch.bfloat16)
outputs = model(torch.tensor([[2, 3]]))
result = [str(model.dtype), model.embeddings.word_embeddings.weight.float(), str(outputs[0].dtype)]
""",
    "similar words in two sentences": """
import torch
from transformers import BertModel, BertTokenizer
tokenizer = BertTokenizer.from_pretrained(BERT)
model = BertModel.from_pretrained(BERT, output_hidden_states=True, add_pooling_layer=False).eval()
def vector(sentence, word):
    inputs = tokenizer(sentence, return_tensors="pt")
    position = inputs["input_ids"][0].tolist().index(tokenizer.convert_tokens_to_ids(word))
    with torch.no_grad():
        return model(**inputs).hidden_states[-2][0][position]
a, b = vector("money in the bank", "bank"), vector("the bank of the river", "bank")
result = [torch.cosine_similarity(a, b, dim=0), tokenizer.vocab_size, tokenizer.cls_token_id, tokenizer.pad_token]
""",
    "left padding": """
from transformers import AutoModel, AutoTokenizer
result = []
for folder in (BERT, ROBERTA):
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModel.from_pretrained(folder)
    batch = tokenizer(["a film", "a much longer film and story"], padding=True, return_tensors="pt")
    states = model(**batch).last_hidden_state
    result += [batch["input_ids"], states[:, -1], states[1, 0]]
""",
}


def run(snippet: str, module: str, **names: Any) -> list[Any]:
    space = dict(names)
    exec(compile(snippet.replace("from transformers import", f"from {module} import"), module, "exec"), space)
    return space["result"]


def plain(value: Any) -> Any:
    return value.detach().float().numpy() if isinstance(value, torch.Tensor) else value


@pytest.mark.filterwarnings("ignore:.*the pooler is stored but was never trained")  # of a model made from a config
@pytest.mark.parametrize("name", SNIPPETS)
def test_the_same_numbers(name, checkpoint, tmp_path):
    folders = {"BERT": str(checkpoint("bert")), "ROBERTA": str(checkpoint("roberta"))}
    snippet = SNIPPETS[name]
    assert "from transformers import" in snippet
    expected = run(snippet, "transformers", OUT=str(tmp_path / "theirs"), **folders)
    found = run(snippet, "layertap.hf", OUT=str(tmp_path / "ours"), **folders)
    assert len(found) == len(expected) > 0
    for a, b in zip(map(plain, found), map(plain, expected), strict=True):
        if isinstance(b, np.ndarray | float):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        else:
            assert a == b
